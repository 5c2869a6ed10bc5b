"""Tasks, in one language, under every condition of the cell: one model load each."""


rule evaluate_task:
    """Score a task in one language, untouched and under every intervention."""
    input:
        unpack(condition_inputs),
        manifest=weights,
        definition=task_definition,
    output:
        ensure(
            "results/{model}/evaluation/{variant}/{adapter}/{task}/{lang}.parquet", non_empty=True
        ),
    log:
        "logs/evaluate_task/{model}/{variant}/{adapter}/{task}/{lang}.log",
    benchmark:
        "benchmarks/results/evaluate_task/{model}/{variant}/{adapter}/{task}/{lang}.tsv"
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
        engine=cfg.runtime.engine,
    params:
        cfg=stage("evaluate_task"),
        code=code("evaluate_task.py"),
    script:
        "../scripts/evaluate_task.py"
