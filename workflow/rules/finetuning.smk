"""Training of chosen neurons: one adapter per model, fine-tuning and neuron choice."""


localrules:
    prepare_training,


rule prepare_training:
    """Fetch the training rows of a fine-tuning."""
    input:
        definition=training_definition,
    output:
        rows=ensure("resources/training/{variant}/{finetuning}.jsonl", non_empty=True),
        about="resources/training/{variant}/{finetuning}.json",
    log:
        "logs/prepare_training/{variant}/{finetuning}.log",
    benchmark:
        "benchmarks/results/prepare_training/{variant}/{finetuning}.tsv"
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=60,
        network=1,
    params:
        cfg=stage("prepare_training"),
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
            "results/{model}/adapters/{variant}/{adapter}/adapter_model.safetensors",
            non_empty=True,
        ),
        config="results/{model}/adapters/{variant}/{adapter}/adapter_config.json",
        curves=ensure("results/{model}/adapters/{variant}/{adapter}/curves.parquet", non_empty=True),
    log:
        "logs/finetune/{model}/{variant}/{adapter}.log",
    benchmark:
        "benchmarks/results/finetune/{model}/{variant}/{adapter}.tsv"
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
        cfg=stage("finetune"),
        code=code("finetune.py"),
    script:
        "../scripts/finetune.py"
