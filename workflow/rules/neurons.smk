"""Statistics to neuron tables: the only place where a language set enters."""


localrules:
    select_neurons,


rule select_neurons:
    """Select the neurons of every language of a set by one method."""
    input:
        statistics=lambda wc: list(statistics_of_set(wc).values()),
        selections=selection_inputs,
    output:
        ensure("results/{model}/neurons/{langset}/{selection}.parquet", non_empty=True),
    log:
        "logs/select_neurons/{model}/{langset}/{selection}.log",
    benchmark:
        "benchmarks/results/select_neurons/{model}/{langset}/{selection}.tsv"
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=16000,
        runtime=30,
        mask=mask,
    params:
        cfg=stage("select_neurons"),
        code=selection_code,
    script:
        "../scripts/select_neurons.py"
