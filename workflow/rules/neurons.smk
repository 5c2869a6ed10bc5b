"""Statistics to neuron tables: the only place where a language set enters."""


localrules:
    prepare_mask,
    select_neurons,


rule prepare_mask:
    """Fetch the published neurons of a selection and compare them with the model."""
    input:
        manifest="resources/models/{model}/manifest.json",
    output:
        ensure("resources/masks/{model}/{selection}.safetensors", non_empty=True),
    log:
        "logs/prepare_mask/{model}/{selection}.log",
    benchmark:
        "benchmarks/results/prepare_mask/{model}/{selection}.tsv"
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=60,
        network=1,
    params:
        cfg=stage("prepare_mask"),
        code=code("prepare_mask.py"),
    script:
        "../scripts/prepare_mask.py"


rule select_neurons:
    """Select the neurons of every language of a set by one method."""
    input:
        statistics=lambda wc: list(statistics_of_set(wc).values()),
        selections=selection_inputs,
        fetched=fetched_mask,
        weights=selection_weights,
        attributions=selection_attributions,
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
