"""Packed blocks to activation statistics: one pass of the model per language, in shards."""


localrules:
    merge_statistics,


rule collect_statistics:
    """Measure every neuron on one shard of a language's corpus."""
    input:
        manifest=weights,
        corpus="results/{model}/corpora/{lang}.safetensors",
    output:
        ensure("results/{model}/shards/{lang}/{shard}.safetensors", non_empty=True),
    log:
        "logs/collect_statistics/{model}/{lang}/{shard}.log",
    benchmark:
        "benchmarks/results/collect_statistics/{model}/{lang}/{shard}.tsv"
    conda:
        "../../environment.yml"
    threads: cfg.runtime.threads
    resources:
        gpu=gpus,
        gres=gres,
        gres_gpu=gres_gpus,
        mem_mb=memory,
        runtime=minutes,
        checkpoint_seconds=int(cfg.runtime.checkpoint_seconds),
    params:
        cfg=stage("collect_statistics"),
        code=code("collect_statistics.py"),
    script:
        "../scripts/collect_statistics.py"


rule merge_statistics:
    """Add the shards of a language; exact, in any order."""
    input:
        shards=shard_inputs,
    output:
        ensure("results/{model}/activations/{lang}.safetensors", non_empty=True),
    log:
        "logs/merge_statistics/{model}/{lang}.log",
    benchmark:
        "benchmarks/results/merge_statistics/{model}/{lang}.tsv"
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=8000,
        runtime=30,
    params:
        cfg=stage("merge_statistics"),
        code=code("merge_statistics.py"),
    script:
        "../scripts/merge_statistics.py"
