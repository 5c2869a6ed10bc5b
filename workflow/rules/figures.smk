"""Records to figures: SVG and PNG, colour-blind safe."""


localrules:
    draw_neurons,
    draw_overlap,
    draw_layers,
    draw_venn,
    draw_activations,
    draw_perplexity,
    draw_tasks,
    draw_curves,


def figure(path, caption, category, **labels):
    """Return the SVG (shown in the report) and the PNG of a figure."""
    path = f"results/figures/{PAPER}/{path}"
    shown = report(
        f"{path}.svg", caption=f"../report/{caption}.rst", category=category, labels=labels
    )
    return {"svg": shown, "png": f"{path}.png"}


def set_selections(model, label):
    """Return the selections that a model has on a language set."""
    return [selection for langset, selection in cfg.cells(model) if langset == label]


def label_tables(wc):
    """Return the neuron tables of every selection on a set."""
    folder = cfg.directory(wc.label)
    names = set_selections(wc.model, wc.label)
    return [f"results/{wc.model}/neurons/{folder}/{name}.parquet" for name in names]


def label_table(wc):
    """Return the neuron table of one selection on a set."""
    return f"results/{wc.model}/neurons/{cfg.directory(wc.label)}/{wc.selection}.parquet"


def label_matrices(wc):
    """Return the perplexity matrices of every selection on a set under one intervention."""
    folder = cfg.directory(wc.label)
    return [
        f"results/{wc.model}/perplexity/{langset}/{selection}/{wc.intervention}.parquet"
        for langset, selection, intervention in cfg.perplexity_cells(wc.model)
        if langset == folder and intervention == wc.intervention
    ]


def model_statistics(wc):
    """Return the statistics of every language of a model."""
    langs = cfg.model_languages(wc.model)
    return [f"results/{wc.model}/activations/{lang}.safetensors" for lang in langs]


def task_records(wc):
    """Return the records of a task in every language."""
    return [
        f"results/{wc.model}/evaluation/{adapter}/{task}/{lang}.parquet"
        for adapter, task, lang in cfg.evaluations(wc.model)
        if task == wc.task
    ]


rule draw_neurons:
    """Neurons per language, by selection."""
    input:
        label_tables,
    output:
        **figure(
            "{model}/{label}/neurons",
            "neurons",
            "Neurons",
            model="{model}",
            languages="{label}",
        ),
    log:
        f"logs/draw_neurons/{PAPER}/{{model}}/{{label}}/neurons.log",
    benchmark:
        f"benchmarks/results/draw_neurons/{PAPER}/{{model}}/{{label}}/neurons.tsv"
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=8000,
        runtime=30,
    params:
        cfg=stage("show"),
        code=code("draw_neurons.py"),
    script:
        "../scripts/draw_neurons.py"


rule draw_overlap:
    """Neurons that pairs of languages share."""
    input:
        label_table,
    output:
        **figure(
            "{model}/{label}/{selection}/overlap",
            "overlap",
            "Overlap",
            model="{model}",
            languages="{label}",
            selection="{selection}",
        ),
    log:
        f"logs/draw_overlap/{PAPER}/{{model}}/{{label}}/{{selection}}/overlap.log",
    benchmark:
        f"benchmarks/results/draw_overlap/{PAPER}/{{model}}/{{label}}/{{selection}}/overlap.tsv"
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=8000,
        runtime=30,
    params:
        cfg=stage("show"),
        code=code("draw_overlap.py"),
    script:
        "../scripts/draw_overlap.py"


rule draw_layers:
    """Neurons by language and layer."""
    input:
        label_table,
    output:
        **figure(
            "{model}/{label}/{selection}/layers",
            "layers",
            "Layers",
            model="{model}",
            languages="{label}",
            selection="{selection}",
        ),
    log:
        f"logs/draw_layers/{PAPER}/{{model}}/{{label}}/{{selection}}/layers.log",
    benchmark:
        f"benchmarks/results/draw_layers/{PAPER}/{{model}}/{{label}}/{{selection}}/layers.tsv"
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=8000,
        runtime=30,
    params:
        cfg=stage("show"),
        code=code("draw_layers.py"),
    script:
        "../scripts/draw_layers.py"


rule draw_venn:
    """Neurons that three languages share."""
    input:
        label_table,
    output:
        **figure(
            "{model}/{label}/{selection}/venn",
            "venn",
            "Overlap",
            model="{model}",
            languages="{label}",
            selection="{selection}",
        ),
    log:
        f"logs/draw_venn/{PAPER}/{{model}}/{{label}}/{{selection}}/venn.log",
    benchmark:
        f"benchmarks/results/draw_venn/{PAPER}/{{model}}/{{label}}/{{selection}}/venn.tsv"
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=8000,
        runtime=30,
    params:
        cfg=stage("show"),
        code=code("draw_venn.py"),
    script:
        "../scripts/draw_venn.py"


rule draw_activations:
    """Distribution of activations by language."""
    input:
        model_statistics,
    output:
        **figure(
            "{model}/activations",
            "activations",
            "Activations",
            model="{model}",
        ),
    log:
        f"logs/draw_activations/{PAPER}/{{model}}/activations.log",
    benchmark:
        f"benchmarks/results/draw_activations/{PAPER}/{{model}}/activations.tsv"
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=8000,
        runtime=30,
    params:
        cfg=stage("show"),
        code=code("draw_activations.py"),
    script:
        "../scripts/draw_activations.py"


rule draw_perplexity:
    """Change of perplexity: neurons of one language, text of another."""
    input:
        label_matrices,
    output:
        **figure(
            "{model}/{label}/{intervention}/perplexity",
            "perplexity",
            "Perplexity",
            model="{model}",
            languages="{label}",
            intervention="{intervention}",
        ),
    log:
        f"logs/draw_perplexity/{PAPER}/{{model}}/{{label}}/{{intervention}}/perplexity.log",
    benchmark:
        f"benchmarks/results/draw_perplexity/{PAPER}/{{model}}/{{label}}/{{intervention}}/perplexity.tsv"
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=8000,
        runtime=30,
    params:
        cfg=stage("show"),
        code=code("draw_perplexity.py"),
    script:
        "../scripts/draw_perplexity.py"


rule draw_tasks:
    """Task scores under interventions against the untouched model."""
    input:
        task_records,
    output:
        **figure(
            "{model}/{task}/scores",
            "tasks",
            "Tasks",
            model="{model}",
            task="{task}",
        ),
    log:
        f"logs/draw_tasks/{PAPER}/{{model}}/{{task}}/scores.log",
    benchmark:
        f"benchmarks/results/draw_tasks/{PAPER}/{{model}}/{{task}}/scores.tsv"
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=8000,
        runtime=30,
    params:
        cfg=stage("show"),
        code=code("draw_tasks.py"),
    script:
        "../scripts/draw_tasks.py"


def curve_files(wc):
    """Return the curves of every adapter of a fine-tuning."""
    return [
        f"results/{wc.model}/adapters/{name}/curves.parquet"
        for name, adapter in cfg.adapters(wc.model).items()
        if adapter.finetuning == wc.finetuning
    ]


rule draw_curves:
    """Loss and accuracy of every adapter of a fine-tuning, over the steps."""
    input:
        curve_files,
    output:
        **figure(
            "{model}/{finetuning}/curves",
            "curves",
            "Fine-tuning",
            model="{model}",
            finetuning="{finetuning}",
        ),
    log:
        f"logs/draw_curves/{PAPER}/{{model}}/{{finetuning}}/curves.log",
    benchmark:
        f"benchmarks/results/draw_curves/{PAPER}/{{model}}/{{finetuning}}/curves.tsv"
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=8000,
        runtime=30,
    params:
        cfg=stage("show"),
        code=code("draw_curves.py"),
    script:
        "../scripts/draw_curves.py"
