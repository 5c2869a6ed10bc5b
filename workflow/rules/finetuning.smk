"""LoRA on chosen neurons: one adapter per model, fine-tuning and neuron choice."""


localrules:
    prepare_training,


def training_definition(wc):
    """Return the YAML file that defines the task that is trained."""
    name = wc.get("finetuning") or cfg.adapters(wc.model)[wc.adapter].finetuning
    return cfg.finetunings[name].definition or str(ROOT / "config" / "tasks" / f"{name}.yaml")


def adapter_inputs(wc):
    """Return the training rows of an adapter and, where it is restricted, its neurons."""
    adapter = cfg.adapters(wc.model)[wc.adapter]
    inputs = {"rows": f"resources/training/{adapter.finetuning}.jsonl"}
    if adapter.selection is not None:
        folder = f"results/{wc.model}/neurons/{adapter.langset}"
        inputs["neurons"] = f"{folder}/{adapter.selection}.parquet"
    return inputs


def reporting(wc):
    """Return where the Trainer reports as well; no result depends on it."""
    return cfg.finetunings[cfg.adapters(wc.model)[wc.adapter].finetuning].training.report_to


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
