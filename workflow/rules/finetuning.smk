"""LoRA on chosen neurons: one adapter per model, fine-tuning and neuron choice."""


localrules:
    prepare_training,


rule prepare_training:
    """Fetch the training rows of a fine-tuning."""
    input:
        definition=training_definition,
    output:
        ensure("resources/training/{finetuning}.jsonl", non_empty=True),
    log:
        "logs/prepare_training/{finetuning}.log",
    benchmark:
        "benchmarks/results/prepare_training/{finetuning}.tsv"
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=60,
    params:
        cfg=stage("prepare_training", "finetuning"),
        code=code("prepare_task.py"),
    script:
        "../scripts/prepare_task.py"


rule finetune:
    """Train one adapter."""
    input:
        unpack(adapter_inputs),
        manifest="resources/models/{model}/manifest.json",
        definition=training_definition,
    output:
        adapter=ensure(
            "results/{model}/adapters/{adapter}/adapter_model.safetensors", non_empty=True
        ),
        config="results/{model}/adapters/{adapter}/adapter_config.json",
        curves=ensure("results/{model}/adapters/{adapter}/curves.parquet", non_empty=True),
    log:
        "logs/finetune/{model}/{adapter}.log",
    benchmark:
        "benchmarks/results/finetune/{model}/{adapter}.tsv"
    conda:
        "../../environment.yml"
    threads: cfg.runtime.threads
    resources:
        gpu=cfg.runtime.gpu,
        mem_mb=memory,
        runtime=minutes,
        report_to=reporting,
    params:
        cfg=stage("finetune", "model", "adapter"),
        code=code("finetune.py"),
    script:
        "../scripts/finetune.py"
