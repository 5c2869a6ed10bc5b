"""Packed blocks to activation statistics: one pass of the model per language, in shards."""

# One shard is the whole: it needs no copy.
SHARDED = cfg.statistics.shards > 1
PART = "{model}/{lang}/{shard}" if SHARDED else "{model}/{lang}"
COLLECTED = (
    "results/{model}/shards/{lang}/{shard}.safetensors"
    if SHARDED
    else "results/{model}/activations/{lang}.safetensors"
)

# Files of the slices that a shard holds.
SLICES = [
    f"results/{{model}}/slices/{{lang}}/{name}.safetensors" for name in slice_names(cfg, "{shard}")
]


if cfg.statistics.until is None:

    rule collect_statistics:
        """Measure every neuron on one shard of a language's corpus."""
        input:
            manifest=weights,
            corpus="results/{model}/corpora/{lang}.safetensors",
        output:
            ensure(COLLECTED, non_empty=True),
            ensure(SLICES, non_empty=True),
        log:
            f"logs/collect_statistics/{PART}.log",
        benchmark:
            f"benchmarks/results/collect_statistics/{PART}.tsv"
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


# One job of a model reads the text of all its languages in turns, and stops for all at once. Its
# many files are named in full: Snakemake compares every file with every pattern of a wildcard.
for model in [cell["model"] for cell in STAGES["collect_until"].cells(cfg)]:

    rule:
        name:
            f"collect_until@{model}"
        input:
            manifest=cfg.manifest(model),
            weights=until_weights(model),
            corpora=[
                f"results/{model}/corpora/{lang}.safetensors"
                for lang in cfg.model_languages(model)
            ],
        output:
            curve=ensure(f"results/{model}/until.parquet", non_empty=True),
            statistics=ensure(statistics_of(model), non_empty=True),
            slices=ensure(slice_files(cfg, model, cfg.model_languages(model)), non_empty=True),
        log:
            f"logs/collect_until/{model}/all.log",
        benchmark:
            f"benchmarks/results/collect_until/{model}/all.tsv"
        conda:
            "../../environment.yml"
        threads: cfg.runtime.threads
        resources:
            gpu=gpus(of_model(model)),
            gres=gres(of_model(model)),
            gres_gpu=gres_gpus(of_model(model)),
            mem_mb=lambda wc, attempt, model=model: memory(of_model(model), attempt),
            runtime=lambda wc, attempt, model=model: minutes(of_model(model), attempt),
            checkpoint_seconds=int(cfg.runtime.checkpoint_seconds),
        params:
            cfg=stage("collect_until", model=model),
            code=until_code,
        script:
            "../scripts/collect_until.py"


rule attribute_neurons:
    """Attribute the likelihood of a language's corpus to every neuron: a pass with gradients."""
    input:
        manifest=weights,
        corpus="results/{model}/corpora/{lang}.safetensors",
    output:
        ensure("results/{model}/attribution/{lang}.safetensors", non_empty=True),
    log:
        "logs/attribute_neurons/{model}/{lang}.log",
    benchmark:
        "benchmarks/results/attribute_neurons/{model}/{lang}.tsv"
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
        cfg=stage("attribute_neurons"),
        code=code("attribute_neurons.py"),
    script:
        "../scripts/attribute_neurons.py"


if SHARDED:

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
        localrule: True
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
