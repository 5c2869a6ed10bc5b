"""Records to figures: SVG and PNG, colour-blind safe."""


localrules:
    draw_neurons,
    draw_overlap,
    draw_layers,
    draw_venn,
    draw_activations,
    draw_perplexity,
    draw_lss,
    draw_lss_factors,
    draw_lss_layers,
    draw_targets,
    draw_task_layers,
    draw_tasks,
    draw_curves,
    name_figure,


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
    """Change of perplexity and cross-entropy: neurons of one language, text of another."""
    input:
        label_matrices,
    output:
        **figure(
            "{model}/{protocol}/{label}/{intervention}/perplexity",
            "perplexity",
            "Perplexity",
            model="{model}",
            protocol="{protocol}",
            languages="{label}",
            intervention="{intervention}",
        ),
        **renamed(
            "nll_",
            figure(
                "{model}/{protocol}/{label}/{intervention}/cross_entropy",
                "perplexity",
                "Perplexity",
                model="{model}",
                protocol="{protocol}",
                languages="{label}",
                intervention="{intervention}",
            ),
        ),
    log:
        f"logs/draw_perplexity/{PAPER}/{{model}}/{{protocol}}/{{label}}/{{intervention}}/perplexity.log",
    benchmark:
        f"benchmarks/results/draw_perplexity/{PAPER}/{{model}}/{{protocol}}/{{label}}/{{intervention}}/perplexity.tsv"
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


rule draw_lss:
    """Language Steering Shift under one intervention: base language x target language."""
    input:
        label_shifts,
    output:
        **figure(
            "{model}/{protocol}/{label}/{intervention}/lss",
            "lss",
            "Steering",
            model="{model}",
            protocol="{protocol}",
            languages="{label}",
            intervention="{intervention}",
        ),
    log:
        f"logs/draw_lss/{PAPER}/{{model}}/{{protocol}}/{{label}}/{{intervention}}/lss.log",
    benchmark:
        f"benchmarks/results/draw_lss/{PAPER}/{{model}}/{{protocol}}/{{label}}/{{intervention}}/lss.tsv"
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=8000,
        runtime=30,
    params:
        cfg=stage("show_lss"),
        code=code("draw_lss.py"),
    script:
        "../scripts/draw_lss.py"


rule draw_lss_factors:
    """Mean Language Steering Shift of every intervention, beside that of random neurons."""
    input:
        label_shifts,
    output:
        **figure(
            "{model}/{protocol}/{label}/lss_factors",
            "lss",
            "Steering",
            model="{model}",
            protocol="{protocol}",
            languages="{label}",
        ),
    log:
        f"logs/draw_lss_factors/{PAPER}/{{model}}/{{protocol}}/{{label}}/lss_factors.log",
    benchmark:
        f"benchmarks/results/draw_lss_factors/{PAPER}/{{model}}/{{protocol}}/{{label}}/lss_factors.tsv"
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=8000,
        runtime=30,
    params:
        cfg=stage("show_lss"),
        code=code("draw_lss_factors.py"),
    script:
        "../scripts/draw_lss_factors.py"


rule draw_lss_layers:
    """Language Steering Shift by the layers that are overwritten."""
    input:
        label_shifts,
    output:
        **figure(
            "{model}/{protocol}/{label}/{sweep}/lss_layers",
            "lss",
            "Steering",
            model="{model}",
            protocol="{protocol}",
            languages="{label}",
            intervention="{sweep}",
        ),
    log:
        f"logs/draw_lss_layers/{PAPER}/{{model}}/{{protocol}}/{{label}}/{{sweep}}/lss_layers.log",
    benchmark:
        f"benchmarks/results/draw_lss_layers/{PAPER}/{{model}}/{{protocol}}/{{label}}/{{sweep}}/lss_layers.tsv"
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=8000,
        runtime=30,
    params:
        cfg=stage("show_lss"),
        code=code("draw_lss_layers.py"),
    script:
        "../scripts/draw_lss_layers.py"


rule draw_tasks:
    """Task scores under interventions against the untouched model."""
    input:
        task_scores,
    output:
        **figure(
            "{model}/{protocol}/{task}/scores",
            "tasks",
            "Tasks",
            model="{model}",
            protocol="{protocol}",
            task="{task}",
        ),
    log:
        f"logs/draw_tasks/{PAPER}/{{model}}/{{protocol}}/{{task}}/scores.log",
    benchmark:
        f"benchmarks/results/draw_tasks/{PAPER}/{{model}}/{{protocol}}/{{task}}/scores.tsv"
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


rule draw_targets:
    """Task scores: evaluated language x language whose neurons are overwritten."""
    input:
        task_scores,
    output:
        **figure(
            "{model}/{protocol}/{task}/{label}/{intervention}/targets",
            "targets",
            "Tasks",
            model="{model}",
            protocol="{protocol}",
            task="{task}",
            languages="{label}",
            intervention="{intervention}",
        ),
    log:
        f"logs/draw_targets/{PAPER}/{{model}}/{{protocol}}/{{task}}/{{label}}/{{intervention}}/targets.log",
    benchmark:
        f"benchmarks/results/draw_targets/{PAPER}/{{model}}/{{protocol}}/{{task}}/{{label}}/{{intervention}}/targets.tsv"
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=8000,
        runtime=30,
    params:
        cfg=stage("show"),
        code=code("draw_targets.py"),
    script:
        "../scripts/draw_targets.py"


rule draw_task_layers:
    """Task scores by the layers that are overwritten."""
    input:
        task_scores,
    output:
        **figure(
            "{model}/{protocol}/{task}/{label}/{sweep}/task_layers",
            "targets",
            "Tasks",
            model="{model}",
            protocol="{protocol}",
            task="{task}",
            languages="{label}",
            intervention="{sweep}",
        ),
    log:
        f"logs/draw_task_layers/{PAPER}/{{model}}/{{protocol}}/{{task}}/{{label}}/{{sweep}}/task_layers.log",
    benchmark:
        f"benchmarks/results/draw_task_layers/{PAPER}/{{model}}/{{protocol}}/{{task}}/{{label}}/{{sweep}}/task_layers.tsv"
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=8000,
        runtime=30,
    params:
        cfg=stage("show"),
        code=code("draw_task_layers.py"),
    script:
        "../scripts/draw_task_layers.py"


rule draw_curves:
    """Loss and accuracy of every adapter of a fine-tuning, over the steps."""
    input:
        curve_files,
    output:
        **figure(
            "{model}/{protocol}/{finetuning}/curves",
            "curves",
            "Fine-tuning",
            model="{model}",
            protocol="{protocol}",
            finetuning="{finetuning}",
        ),
    log:
        f"logs/draw_curves/{PAPER}/{{model}}/{{protocol}}/{{finetuning}}/curves.log",
    benchmark:
        f"benchmarks/results/draw_curves/{PAPER}/{{model}}/{{protocol}}/{{finetuning}}/curves.tsv"
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


rule name_figure:
    """A figure under the name that it has in the paper's order."""
    input:
        drawn_figure,
    output:
        **figure("{figure}", "named", "Figures in the paper's order", figure="{figure}"),
    log:
        f"logs/name_figure/{PAPER}/{{figure}}.log",
    benchmark:
        f"benchmarks/results/name_figure/{PAPER}/{{figure}}.tsv"
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=500,
        runtime=10,
    params:
        about=lambda wc: about_figure(wc.figure),
        code=code("name_figure.py"),
    script:
        "../scripts/name_figure.py"
