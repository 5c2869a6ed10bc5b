"""Records to tables: CSV, Markdown and LaTeX, with intervals and corrected tests."""

# The scores of all tasks of a model under a protocol are one job.
for model in cfg.models if cfg.tasks else ():
    for protocol in cfg.protocols:

        rule:
            name:
                f"tabulate_scores@{model}@{protocol}"
            input:
                task_records(model, protocol),
            output:
                score_files(model, protocol),
            log:
                f"logs/tabulate_scores/{PAPER}/{model}/{protocol}.log",
            benchmark:
                f"benchmarks/results/tabulate_scores/{PAPER}/{model}/{protocol}.tsv"
            conda:
                "../../environment.yml"
            threads: 1
            resources:
                mem_mb=16000,
                runtime=240,
            params:
                cfg=stage("labels"),
                code=code("tabulate_scores.py"),
            script:
                "../scripts/tabulate_scores.py"


for family, names in TABLES.items():

    rule:
        name:
            f"tabulate_{family}"
        input:
            **table_inputs(family),
        output:
            table_outputs(names),
        log:
            f"logs/tabulate_{family}/{PAPER}.log",
        benchmark:
            f"benchmarks/results/tabulate_{family}/{PAPER}.tsv"
        localrule: True
        conda:
            "../../environment.yml"
        threads: 1
        resources:
            mem_mb=FAMILIES[family].mem_mb,
            runtime=FAMILIES[family].runtime,
        params:
            cfg=stage("labels"),
            code=code("tabulate.py", FAMILIES[family].module),
            family=family,
        script:
            "../scripts/tabulate.py"
