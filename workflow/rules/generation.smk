"""What models write under interventions: language forcing, fallback order, logit lens."""


localrules:
    prepare_questions,
    judge_texts,
    tabulate_forcing,
    tabulate_fallback,
    tabulate_lens,
    draw_forcing,
    draw_fallback,
    draw_lens,
    draw_lens_change,


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
        cfg=stage("prepare_questions", "analysis", "lang"),
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
    params:
        cfg=stage("force_language", "model", "variant", "langset", "selection", "intervention"),
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
    params:
        cfg=stage("fall_back", "model", "variant", "langset", "selection", "intervention"),
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
        cfg=stage("judge_texts", "analysis"),
        code=code("judge_texts.py"),
    script:
        "../scripts/judge_texts.py"


rule read_layers:
    """Read what every layer would say next, by language of the tokens."""
    input:
        manifest=weights,
        neurons=lens_tables,
        statistics=lens_statistics,
        corpora=heldout_inputs,
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
        cfg=stage("read_layers", "model", "variant", "langset"),
        code=code("read_layers.py"),
    script:
        "../scripts/read_layers.py"


rule tabulate_forcing:
    """Success of forcing by pair and by target."""
    input:
        judged_files("forcing"),
    output:
        table("forcing", "forcing_summary"),
    log:
        f"logs/tabulate_forcing/{PAPER}.log",
    benchmark:
        f"benchmarks/results/tabulate_forcing/{PAPER}.tsv"
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=30,
    params:
        cfg=stage("show"),
        code=code("tabulate_forcing.py"),
    script:
        "../scripts/tabulate_forcing.py"


rule tabulate_fallback:
    """Languages of the answers at every step of deactivation."""
    input:
        judged_files("fallback"),
    output:
        table("fallback"),
    log:
        f"logs/tabulate_fallback/{PAPER}.log",
    benchmark:
        f"benchmarks/results/tabulate_fallback/{PAPER}.tsv"
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=30,
    params:
        cfg=stage("show"),
        code=code("tabulate_fallback.py"),
    script:
        "../scripts/tabulate_fallback.py"


rule tabulate_lens:
    """Probability of languages by layer."""
    input:
        lens_files(),
    output:
        table("lens", "lens_tokens"),
    log:
        f"logs/tabulate_lens/{PAPER}.log",
    benchmark:
        f"benchmarks/results/tabulate_lens/{PAPER}.tsv"
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=30,
    params:
        cfg=stage("show"),
        code=code("tabulate_lens.py"),
    script:
        "../scripts/tabulate_lens.py"


rule draw_forcing:
    """Success of forcing, language of the question x target."""
    input:
        lambda wc: label_judged("forcing", wc),
    output:
        **figure(
            "{model}/{protocol}/{label}/{intervention}/forcing",
            "forcing",
            "Generation",
            model="{model}",
            protocol="{protocol}",
            languages="{label}",
            intervention="{intervention}",
        ),
    log:
        f"logs/draw_forcing/{PAPER}/{{model}}/{{protocol}}/{{label}}/{{intervention}}/forcing.log",
    benchmark:
        f"benchmarks/results/draw_forcing/{PAPER}/{{model}}/{{protocol}}/{{label}}/{{intervention}}/forcing.tsv"
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=30,
    params:
        cfg=stage("show"),
        code=code("draw_forcing.py"),
    script:
        "../scripts/draw_forcing.py"


rule draw_fallback:
    """Languages of the answers at every step of deactivation."""
    input:
        lambda wc: label_judged("fallback", wc),
    output:
        **figure(
            "{model}/{protocol}/{label}/{intervention}/fallback",
            "fallback",
            "Generation",
            model="{model}",
            protocol="{protocol}",
            languages="{label}",
            intervention="{intervention}",
        ),
    log:
        f"logs/draw_fallback/{PAPER}/{{model}}/{{protocol}}/{{label}}/{{intervention}}/fallback.log",
    benchmark:
        f"benchmarks/results/draw_fallback/{PAPER}/{{model}}/{{protocol}}/{{label}}/{{intervention}}/fallback.tsv"
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=30,
    params:
        cfg=stage("show"),
        code=code("draw_fallback.py"),
    script:
        "../scripts/draw_fallback.py"


rule draw_lens:
    """Probability of languages by layer, untouched."""
    input:
        label_lens,
    output:
        **figure(
            "{model}/{protocol}/{label}/lens",
            "lens",
            "Generation",
            model="{model}",
            protocol="{protocol}",
            languages="{label}",
        ),
    log:
        f"logs/draw_lens/{PAPER}/{{model}}/{{protocol}}/{{label}}/lens.log",
    benchmark:
        f"benchmarks/results/draw_lens/{PAPER}/{{model}}/{{protocol}}/{{label}}/lens.tsv"
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=30,
    params:
        cfg=stage("show"),
        code=code("draw_lens.py"),
    script:
        "../scripts/draw_lens.py"


rule draw_lens_change:
    """Probability of languages by layer, with neurons written."""
    input:
        label_lens,
    output:
        **figure(
            "{model}/{protocol}/{label}/{intervention}/lens_change",
            "lens",
            "Generation",
            model="{model}",
            protocol="{protocol}",
            languages="{label}",
            intervention="{intervention}",
        ),
    log:
        f"logs/draw_lens_change/{PAPER}/{{model}}/{{protocol}}/{{label}}/{{intervention}}/lens_change.log",
    benchmark:
        f"benchmarks/results/draw_lens_change/{PAPER}/{{model}}/{{protocol}}/{{label}}/{{intervention}}/lens_change.tsv"
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=30,
    params:
        cfg=stage("show"),
        code=code("draw_lens_change.py"),
    script:
        "../scripts/draw_lens_change.py"
