"""Training of chosen neurons: one adapter per model, fine-tuning and neuron choice."""


localrules:
    prepare_training,


rule prepare_training:
    """Fetch the training rows of a fine-tuning."""
    input:
        definition=training_definition,
    output:
        rows=ensure("resources/training/{points}/{finetuning}.jsonl", non_empty=True),
        about="resources/training/{points}/{finetuning}.json",
    log:
        "logs/prepare_training/{points}/{finetuning}.log",
    benchmark:
        "benchmarks/results/prepare_training/{points}/{finetuning}.tsv"
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=60,
        network=1,
    params:
        cfg=stage("prepare_training", "points", "finetuning"),
        code=code("prepare_task.py"),
    script:
        "../scripts/prepare_task.py"


rule finetune:
    """Train one adapter."""
    input:
        unpack(adapter_inputs),
        manifest=weights,
    output:
        adapter=ensure(
            "results/{model}/adapters/{points}/{adapter}/adapter_model.safetensors", non_empty=True
        ),
        config="results/{model}/adapters/{points}/{adapter}/adapter_config.json",
        curves=ensure("results/{model}/adapters/{points}/{adapter}/curves.parquet", non_empty=True),
    log:
        "logs/finetune/{model}/{points}/{adapter}.log",
    benchmark:
        "benchmarks/results/finetune/{model}/{points}/{adapter}.tsv"
    conda:
        "../../environment.yml"
    threads: cfg.runtime.threads
    resources:
        gpu=gpus,
        gres=gres,
        gres_gpu=gres_gpus,
        mem_mb=memory,
        runtime=minutes,
        report_to=reporting,
    params:
        cfg=stage("finetune", "model", "points", "adapter"),
        code=code("finetune.py"),
    script:
        "../scripts/finetune.py"
