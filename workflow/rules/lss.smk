"""Cloze facts to the Language Steering Shift: language of the premise x overwritten language."""


localrules:
    prepare_facts,


rule prepare_facts:
    """Fetch the facts of a premise language."""
    output:
        rows=ensure("resources/facts/{lang}.jsonl", non_empty=True),
        about="resources/facts/{lang}.json",
    log:
        "logs/prepare_facts/{lang}.log",
    benchmark:
        "benchmarks/results/prepare_facts/{lang}.tsv"
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=60,
        network=1,
    params:
        cfg=stage("prepare_facts"),
        code=code("prepare_facts.py"),
    script:
        "../scripts/prepare_facts.py"


rule measure_lss:
    """Score every fact's objects, untouched and under each intervention on each language's neurons."""
    input:
        manifest=weights,
        neurons="results/{model}/neurons/{langset}/{selection}.parquet",
        statistics=lambda wc: list(statistics_of_set(wc).values()),
        facts=fact_inputs,
        abouts=fact_abouts,
    output:
        ensure(
            "results/{model}/lss/{variant}/{langset}/{selection}.parquet",
            non_empty=True,
        ),
    log:
        "logs/measure_lss/{model}/{variant}/{langset}/{selection}.log",
    benchmark:
        "benchmarks/results/measure_lss/{model}/{variant}/{langset}/{selection}.tsv"
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
        cfg=stage("measure_lss"),
        code=code("measure_lss.py"),
    script:
        "../scripts/measure_lss.py"
