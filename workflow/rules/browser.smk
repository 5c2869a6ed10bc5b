"""Single neurons: their contexts, what they write and cost, and the pages made of that."""


localrules:
    write_browser,


rule describe_neurons:
    """Find out about the selected neurons of a set: contexts, tokens written, costs."""
    input:
        manifest=weights,
        neurons=browsed_tables,
        statistics=lambda wc: list(statistics_of_set(wc).values()),
        corpora=heldout_inputs,
    output:
        contexts=ensure("results/{model}/browser/{langset}/contexts.parquet", non_empty=True),
        written=ensure("results/{model}/browser/{langset}/written.parquet", non_empty=True),
        costs=ensure("results/{model}/browser/{langset}/costs.parquet", non_empty=True),
    log:
        "logs/describe_neurons/{model}/{langset}.log",
    benchmark:
        "benchmarks/results/describe_neurons/{model}/{langset}.tsv"
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
        checkpoint_seconds=int(cfg.runtime.checkpoint_seconds),
    params:
        cfg=stage("describe_neurons"),
        code=code("describe_neurons.py"),
    script:
        "../scripts/describe_neurons.py"


rule write_browser:
    """The pages of a model's neurons on a set: one folder that opens from disk."""
    input:
        neurons=set_tables,
        statistics=lambda wc: list(statistics_of_set(wc).values()),
        contexts="results/{model}/browser/{langset}/contexts.parquet",
        written="results/{model}/browser/{langset}/written.parquet",
        costs="results/{model}/browser/{langset}/costs.parquet",
    output:
        page=f"results/browser/{PAPER}/{{model}}/{{langset}}/index.html",
        data=directory(f"results/browser/{PAPER}/{{model}}/{{langset}}/data"),
    log:
        f"logs/write_browser/{PAPER}/{{model}}/{{langset}}.log",
    benchmark:
        f"benchmarks/results/write_browser/{PAPER}/{{model}}/{{langset}}.tsv"
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=8000,
        runtime=60,
    params:
        cfg=stage("write_browser"),
        code=code("write_browser.py"),
    script:
        "../scripts/write_browser.py"
