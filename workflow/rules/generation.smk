"""What models write under interventions: language forcing, fallback order, logit lens."""


localrules:
    prepare_questions,
    judge_texts,


rule prepare_questions:
    """Fetch the questions of a language."""
    output:
        rows=ensure("resources/questions/{analysis}/{lang}.jsonl", non_empty=True),
        about="resources/questions/{analysis}/{lang}.json",
    log:
        "logs/prepare_questions/{analysis}/{lang}.log",
    benchmark:
        "benchmarks/results/prepare_questions/{analysis}/{lang}.tsv"
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=500,
        runtime=10,
    params:
        cfg=stage("prepare_questions"),
        code=code("prepare_questions.py"),
    script:
        "../scripts/prepare_questions.py"


rule force_language:
    """Answer questions of every language with every language forced upon the answer."""
    input:
        manifest=weights,
        neurons="results/{model}/neurons/{langset}/{selection}.parquet",
        statistics=lambda wc: list(statistics_of_set(wc).values()),
        questions=forcing_questions,
    output:
        ensure(
            "results/{model}/texts/forcing/{variant}/{langset}/{selection}/{intervention}.parquet",
            non_empty=True,
        ),
    log:
        "logs/force_language/{model}/{variant}/{langset}/{selection}/{intervention}.log",
    benchmark:
        "benchmarks/results/force_language/{model}/{variant}/{langset}/{selection}/{intervention}.tsv"
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
        cfg=stage("force_language"),
        code=code("force_language.py"),
    script:
        "../scripts/force_language.py"


rule fall_back:
    """Answer questions while the neurons of more and more languages are overwritten."""
    input:
        manifest=weights,
        neurons="results/{model}/neurons/{langset}/{selection}.parquet",
        statistics=lambda wc: list(statistics_of_set(wc).values()),
        questions=fallback_questions,
    output:
        ensure(
            "results/{model}/texts/fallback/{variant}/{langset}/{selection}/{intervention}.parquet",
            non_empty=True,
        ),
    log:
        "logs/fall_back/{model}/{variant}/{langset}/{selection}/{intervention}.log",
    benchmark:
        "benchmarks/results/fall_back/{model}/{variant}/{langset}/{selection}/{intervention}.tsv"
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
        cfg=stage("fall_back"),
        code=code("fall_back.py"),
    script:
        "../scripts/fall_back.py"


rule judge_texts:
    """Tell the language of each text, and how far it repeats itself."""
    input:
        "results/{model}/texts/{analysis}/{variant}/{langset}/{selection}/{intervention}.parquet",
    output:
        ensure(
            "results/{model}/judged/{analysis}/{variant}/{langset}/{selection}/{intervention}.parquet",
            non_empty=True,
        ),
    log:
        "logs/judge_texts/{model}/{analysis}/{variant}/{langset}/{selection}/{intervention}.log",
    benchmark:
        "benchmarks/results/judge_texts/{model}/{analysis}/{variant}/{langset}/{selection}/{intervention}.tsv"
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=30,
    params:
        cfg=stage("judge_texts"),
        code=code("judge_texts.py"),
    script:
        "../scripts/judge_texts.py"


rule read_layers:
    """Read what every layer would say next, by language of the tokens."""
    input:
        manifest=weights,
        neurons=lens_tables,
        statistics=lens_statistics,
        corpora=lens_corpora,
        questions=lens_questions,
    output:
        ensure("results/{model}/lens/{variant}/{langset}.parquet", non_empty=True),
    log:
        "logs/read_layers/{model}/{variant}/{langset}.log",
    benchmark:
        "benchmarks/results/read_layers/{model}/{variant}/{langset}.tsv"
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
        cfg=stage("read_layers"),
        code=code("read_layers.py"),
    script:
        "../scripts/read_layers.py"
