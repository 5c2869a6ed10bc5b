"""Slices of statistics to the stability of selections."""


localrules:
    measure_stability,


rule measure_stability:
    """Make a selection again on halves, growing parts and bootstrap draws of the slices."""
    input:
        slices=set_slices,
        weights=stability_weights,
    output:
        ensure("results/{model}/stability/{langset}/{selection}.parquet", non_empty=True),
    log:
        "logs/measure_stability/{model}/{langset}/{selection}.log",
    benchmark:
        "benchmarks/results/measure_stability/{model}/{langset}/{selection}.tsv"
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=16000,
        runtime=60,
    params:
        cfg=stage("measure_stability"),
        code=stability_code,
    script:
        "../scripts/measure_stability.py"
