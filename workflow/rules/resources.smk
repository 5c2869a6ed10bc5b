"""What comes from outside, once, at pinned revisions, where there is a network."""


localrules:
    prepare_model,
    fetch_text,
    prepare_task,


rule prepare_model:
    """Fetch or convert the weights; the manifest is written last."""
    output:
        ensure("resources/models/{model}/manifest.json", non_empty=True),
    log:
        "logs/prepare_model/{model}.log",
    benchmark:
        "benchmarks/results/prepare_model/{model}.tsv"
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=6000,
        runtime=120,
        layers=layers_needed,
        modules=modules_needed,
        network=1,
    params:
        cfg=stage("prepare_model"),
        code=code("prepare_model.py"),
    script:
        "../scripts/prepare_model.py"


rule quantize_model:
    """Write the 4-bit weights, which every job of the model then reads."""
    input:
        manifest="resources/models/{model}/manifest.json",
    output:
        ensure("resources/models/{model}/nf4/manifest.json", non_empty=True),
    log:
        "logs/quantize_model/{model}.log",
    benchmark:
        "benchmarks/results/quantize_model/{model}.tsv"
    conda:
        "../../environment.yml"
    threads: cfg.runtime.threads
    resources:
        mem_mb=memory,
        runtime=minutes,
    params:
        cfg=stage("quantize_model"),
        code=code("quantize_model.py"),
    script:
        "../scripts/quantize_model.py"


rule fetch_text:
    """Fetch the documents of a language and split them by document."""
    output:
        text=ensure("resources/text/{lang}.jsonl", non_empty=True),
        about="resources/text/{lang}.json",
    log:
        "logs/fetch_text/{lang}.log",
    benchmark:
        "benchmarks/results/fetch_text/{lang}.tsv"
    wildcard_constraints:
        lang=languages_of("fetch_text"),
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=240,
        network=1,
    params:
        cfg=stage("fetch_text"),
        code=code("fetch_text.py"),
    script:
        "../scripts/fetch_text.py"


rule prepare_task:
    """Fetch the items of a task in a language."""
    input:
        definition=items_definition,
    output:
        rows=ensure("resources/tasks/{variant}/{task}/{lang}.jsonl", non_empty=True),
        about="resources/tasks/{variant}/{task}/{lang}.json",
    log:
        "logs/prepare_task/{variant}/{task}/{lang}.log",
    benchmark:
        "benchmarks/results/prepare_task/{variant}/{task}/{lang}.tsv"
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=60,
        network=1,
    params:
        cfg=stage("prepare_task"),
        code=code("prepare_task.py"),
    script:
        "../scripts/prepare_task.py"
