"""Neuron tables to perplexity matrices: deactivated language x evaluated language."""


rule measure_perplexity:
    """Read every language's held-out text under each intervention on each language's neurons."""
    input:
        manifest=weights,
        neurons="results/{model}/neurons/{langset}/{selection}.parquet",
        statistics=lambda wc: list(statistics_of_set(wc).values()),
        corpora=heldout_inputs,
    output:
        ensure(
            "results/{model}/perplexity/{variant}/{langset}/{selection}.parquet",
            non_empty=True,
        ),
    log:
        "logs/measure_perplexity/{model}/{variant}/{langset}/{selection}.log",
    benchmark:
        "benchmarks/results/measure_perplexity/{model}/{variant}/{langset}/{selection}.tsv"
    priority: 10
    conda:
        "../../environment.yml"
    threads: cfg.runtime.threads
    resources:
        gpu=gpus,
        gres=gres,
        gres_gpu=gres_gpus,
        mem_mb=memory,
        runtime=minutes,
        batch_tokens=cfg.runtime.batch_tokens,
    params:
        cfg=stage("measure_perplexity"),
        code=code("measure_perplexity.py"),
    script:
        "../scripts/measure_perplexity.py"
