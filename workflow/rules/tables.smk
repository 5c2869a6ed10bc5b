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


# Tables that take seconds are written together: those of the statistics, and of the results.
for job, families in table_jobs(cfg).items():

    rule:
        name:
            f"tabulate_{job}"
        input:
            **table_inputs(families),
        output:
            table_outputs(families),
        log:
            f"logs/tabulate_{job}/{PAPER}.log",
        benchmark:
            f"benchmarks/results/tabulate_{job}/{PAPER}.tsv"
        localrule: True
        conda:
            "../../environment.yml"
        threads: 1
        resources:
            mem_mb=max(FAMILIES[name].mem_mb for name in families),
            runtime=sum(FAMILIES[name].runtime for name in families),
        params:
            cfg=stage("labels"),
            code=code("tabulate.py", *(FAMILIES[name].module for name in families)),
            families=families,
        script:
            "../scripts/tabulate.py"
