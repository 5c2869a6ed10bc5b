"""Records to tables: CSV, Markdown and LaTeX, with intervals and corrected tests."""


localrules:
    tabulate_neurons,
    tabulate_activations,
    tabulate_perplexity,
    tabulate_lss,
    tabulate_tasks,
    tabulate_published,
    tabulate_claims,
    tabulate_sources,


rule tabulate_neurons:
    """Neurons per language, overlap of languages, languages by layer."""
    input:
        neuron_files(),
    output:
        table("neurons", "overlap", "selections", "layers"),
    log:
        f"logs/tabulate_neurons/{PAPER}.log",
    benchmark:
        f"benchmarks/results/tabulate_neurons/{PAPER}.tsv"
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=15,
    params:
        cfg=stage("show"),
        code=code("tabulate_neurons.py"),
    script:
        "../scripts/tabulate_neurons.py"


rule tabulate_activations:
    """Statistics of all neurons per language (Mondal et al. 2025, Table 6)."""
    input:
        statistics_files(),
    output:
        table("activations"),
    log:
        f"logs/tabulate_activations/{PAPER}.log",
    benchmark:
        f"benchmarks/results/tabulate_activations/{PAPER}.tsv"
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=16000,
        runtime=60,
    params:
        cfg=stage("show"),
        code=code("tabulate_activations.py"),
    script:
        "../scripts/tabulate_activations.py"


rule tabulate_perplexity:
    """Change of NLL and perplexity per cell, with intervals."""
    input:
        perplexity_files(),
    output:
        table("perplexity", "perplexity_summary"),
    log:
        f"logs/tabulate_perplexity/{PAPER}.log",
    benchmark:
        f"benchmarks/results/tabulate_perplexity/{PAPER}.tsv"
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=8000,
        runtime=60,
    params:
        cfg=stage("show"),
        code=code("tabulate_perplexity.py"),
    script:
        "../scripts/tabulate_perplexity.py"


rule tabulate_lss:
    """Language Steering Shift per cell, and its mean beside that of random neurons."""
    input:
        lss_files(),
    output:
        table("lss", "lss_summary"),
    log:
        f"logs/tabulate_lss/{PAPER}.log",
    benchmark:
        f"benchmarks/results/tabulate_lss/{PAPER}.tsv"
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=8000,
        runtime=60,
    params:
        cfg=stage("show_lss"),
        code=code("tabulate_lss.py"),
    script:
        "../scripts/tabulate_lss.py"


rule tabulate_scores:
    """Scores of a task under every condition, and their difference to the untouched model."""
    input:
        task_records,
    output:
        f"results/scores/{PAPER}/{{model}}/{{protocol}}/{{task}}.parquet",
    log:
        f"logs/tabulate_scores/{PAPER}/{{model}}/{{protocol}}/{{task}}.log",
    benchmark:
        f"benchmarks/results/tabulate_scores/{PAPER}/{{model}}/{{protocol}}/{{task}}.tsv"
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=16000,
        runtime=120,
    params:
        cfg=stage("show"),
        code=code("tabulate_scores.py"),
    script:
        "../scripts/tabulate_scores.py"


rule tabulate_tasks:
    """Task scores of every model and protocol."""
    input:
        score_files(),
    output:
        table("tasks"),
    log:
        f"logs/tabulate_tasks/{PAPER}.log",
    benchmark:
        f"benchmarks/results/tabulate_tasks/{PAPER}.tsv"
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=8000,
        runtime=60,
    params:
        cfg=stage("show"),
        code=code("tabulate_tasks.py"),
    script:
        "../scripts/tabulate_tasks.py"


rule tabulate_published:
    """Printed numbers beside ours, and each table as the paper lays it out."""
    input:
        records=evaluation_files() if "scores" in PRINTED_KINDS else [],
        statistics=statistics_files() if "activations" in PRINTED_KINDS else [],
        neurons=neuron_files() if "neurons" in PRINTED_KINDS else [],
        printed=PRINTED or [],
    output:
        table("published", "published_summary", *PRINTED_TABLES),
    log:
        f"logs/tabulate_published/{PAPER}.log",
    benchmark:
        f"benchmarks/results/tabulate_published/{PAPER}.tsv"
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=8000,
        runtime=60,
    params:
        cfg=stage("show"),
        code=code("tabulate_published.py"),
    script:
        "../scripts/tabulate_published.py"


rule tabulate_claims:
    """Claims of the paper, each by a stated test, under every protocol."""
    input:
        records=evaluation_files(),
        matrices=perplexity_files(),
    output:
        table("claims"),
    log:
        f"logs/tabulate_claims/{PAPER}.log",
    benchmark:
        f"benchmarks/results/tabulate_claims/{PAPER}.tsv"
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=8000,
        runtime=60,
    params:
        cfg=stage("show"),
        code=code("tabulate_claims.py"),
    script:
        "../scripts/tabulate_claims.py"


rule tabulate_sources:
    """What each model has read, and at which commits."""
    input:
        manifests=[f"resources/models/{model}/manifest.json" for model in cfg.models],
        corpora=corpus_files(),
        fetched=about_files(),
    output:
        table("corpora", "sources"),
    log:
        f"logs/tabulate_sources/{PAPER}.log",
    benchmark:
        f"benchmarks/results/tabulate_sources/{PAPER}.tsv"
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=15,
    params:
        cfg=stage("show"),
        code=code("tabulate_sources.py"),
    script:
        "../scripts/tabulate_sources.py"
