"""Methods compared by answers: development, test, ratings by judges, scores."""


localrules:
    score_answers,


rule answer_development:
    """Answer development questions under every setting of a method."""
    input:
        manifest=weights,
        neurons=answer_tables,
        statistics=answer_statistics,
        questions=answer_questions,
    output:
        ensure(
            "results/{model}/answers/{variant}/{langset}/{method}/development.parquet",
            non_empty=True,
        ),
    log:
        "logs/answer_development/{model}/{variant}/{langset}/{method}.log",
    benchmark:
        "benchmarks/results/answer_development/{model}/{variant}/{langset}/{method}.tsv"
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
        cfg=stage("answer_development"),
        code=code("answer_development.py"),
    script:
        "../scripts/answer_development.py"


rule answer_test:
    """Answer test questions under the chosen settings, beside random draws."""
    input:
        manifest=weights,
        neurons=answer_tables,
        statistics=answer_statistics,
        questions=answer_questions,
        scored="results/{model}/answers/{variant}/{langset}/{method}/development.scored.parquet",
    output:
        ensure("results/{model}/answers/{variant}/{langset}/{method}/test.parquet", non_empty=True),
    log:
        "logs/answer_test/{model}/{variant}/{langset}/{method}.log",
    benchmark:
        "benchmarks/results/answer_test/{model}/{variant}/{langset}/{method}.tsv"
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
        cfg=stage("answer_test"),
        code=code("answer_test.py"),
    script:
        "../scripts/answer_test.py"


rule rate_answers:
    """Let a judge rate how far answers are answers to their questions."""
    input:
        manifest=lambda wc: cfg.manifest(wc.judge),
        answers="results/{model}/answers/{variant}/{langset}/{method}/{phase}.parquet",
    output:
        ensure(
            "results/{model}/answers/{variant}/{langset}/{method}/{phase}.{judge}.parquet",
            non_empty=True,
        ),
    log:
        "logs/rate_answers/{model}/{variant}/{langset}/{method}/{phase}/{judge}.log",
    benchmark:
        "benchmarks/results/rate_answers/{model}/{variant}/{langset}/{method}/{phase}/{judge}.tsv"
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
        cfg=stage("rate_answers"),
        code=code("rate_answers.py"),
    script:
        "../scripts/rate_answers.py"


rule score_answers:
    """Tell the language of each answer, and whether it is one."""
    input:
        answers="results/{model}/answers/{variant}/{langset}/{method}/{phase}.parquet",
        ratings=answer_ratings,
    output:
        ensure(
            "results/{model}/answers/{variant}/{langset}/{method}/{phase}.scored.parquet",
            non_empty=True,
        ),
    log:
        "logs/score_answers/{model}/{variant}/{langset}/{method}/{phase}.log",
    benchmark:
        "benchmarks/results/score_answers/{model}/{variant}/{langset}/{method}/{phase}.tsv"
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=30,
    params:
        cfg=stage("score_answers"),
        code=code("score_answers.py"),
    script:
        "../scripts/score_answers.py"
