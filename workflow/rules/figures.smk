"""Records to figures: SVG and PNG, colour-blind safe, each with its caption beside it."""


localrules:
    name_figures,


# The figures of a model under each protocol are one job each, and those that are under none.
for model in cfg.models:
    for protocol in drawing_jobs(cfg):
        if not drawn(model, protocol):
            continue

        rule:
            name:
                f"draw_figures@{model}@{protocol or '-'}"
            input:
                drawing_inputs(model, protocol),
            output:
                drawing_outputs(model, protocol),
            log:
                f"logs/draw_figures/{PAPER}/{model}/{protocol or '-'}.log",
            benchmark:
                f"benchmarks/results/draw_figures/{PAPER}/{model}/{protocol or '-'}.tsv"
            localrule: True
            conda:
                "../../environment.yml"
            threads: 1
            resources:
                mem_mb=8000,
                runtime=60,
            params:
                cfg=stage("draw_figures", model=model, protocol=protocol),
                code=code("draw_figures.py", *drawing_modules(model, protocol)),
            script:
                "../scripts/draw_figures.py"


rule name_figures:
    """Figures under the names that they have in the paper's order."""
    input:
        svg=[f"{stem}.svg" for stem in NAMED.values()],
        png=[f"{stem}.png" for stem in NAMED.values()],
    output:
        svg=[
            shown_figure(
                f"results/figures/{PAPER}/{name}",
                "Figures in the paper's order",
                {"figure": name},
            )
            for name in NAMED
        ],
        png=[f"results/figures/{PAPER}/{name}.png" for name in NAMED],
        rst=[f"results/figures/{PAPER}/{name}.rst" for name in NAMED],
    log:
        f"logs/name_figures/{PAPER}.log",
    benchmark:
        f"benchmarks/results/name_figures/{PAPER}.tsv"
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=500,
        runtime=10,
    params:
        cfg=stage("name_figures"),
        code=code("name_figures.py"),
    script:
        "../scripts/name_figures.py"
