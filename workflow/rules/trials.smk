"""Methods on trial: tuned on some documents, tested on others, beside random controls."""


rule try_method:
    """Tune a method on development documents and test it on others, beside random controls."""
    input:
        manifest=weights,
        neurons=tried_tables,
        statistics=lambda wc: list(statistics_of_set(wc).values()),
        corpora=tried_corpora,
    output:
        ensure("results/{model}/trials/{langset}/{method}.parquet", non_empty=True),
    log:
        "logs/try_method/{model}/{langset}/{method}.log",
    benchmark:
        "benchmarks/results/try_method/{model}/{langset}/{method}.tsv"
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
        cfg=stage("try_method"),
        code=code("try_method.py"),
    script:
        "../scripts/try_method.py"
