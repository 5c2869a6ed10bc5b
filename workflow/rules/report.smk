"""Everything on one page."""


localrules:
    write_report,


rule write_report:
    """The results page: summary, claims, sortable tables, figures in one HTML file."""
    input:
        tables=table_files(),
        figures=figure_files(),
        neurons=one_table_per_model(),
    output:
        report(
            f"results/reports/{PAPER}.html",
            caption="../report/page.rst",
            category="Summary",
            labels={"page": "all results"},
        ),
    log:
        f"logs/write_report/{PAPER}.log",
    benchmark:
        f"benchmarks/results/write_report/{PAPER}.tsv"
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=15,
    params:
        cfg=stage("page"),
        code=code("write_report.py"),
    script:
        "../scripts/write_report.py"
