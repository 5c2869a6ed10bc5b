"""Tasks, in one language, under every condition of the cell: one model load each."""


def condition_inputs(wc):
    """Return the neuron tables and statistics of every condition."""
    adapter = cfg.adapters(wc.model).get(wc.adapter)
    conditions = cfg.task_conditions(wc.model, wc.task, wc.lang, adapter)
    tables = {
        f"results/{wc.model}/neurons/{langset}/{selection}.parquet"
        for langset, selection, _ in conditions
    }
    langs = {lang for langset, _, _ in conditions for lang in SETS[langset]}
    statistics = {f"results/{wc.model}/activations/{lang}.safetensors" for lang in langs}
    inputs = {"neurons": sorted(tables), "statistics": sorted(statistics)}
    if adapter is not None:
        inputs["adapter"] = f"results/{wc.model}/adapters/{wc.adapter}/adapter_model.safetensors"
    return inputs


rule evaluate_task:
    """Score a task in one language, untouched and under every intervention."""
    input:
        unpack(condition_inputs),
        manifest="resources/models/{model}/manifest.json",
        definition=task_definition,
        rows="resources/tasks/{task}/{lang}.jsonl",
    output:
        ensure("results/{model}/evaluation/{adapter}/{task}/{lang}.parquet", non_empty=True),
    log:
        "logs/evaluate_task/{model}/{adapter}/{task}/{lang}.log",
    benchmark:
        "benchmarks/results/evaluate_task/{model}/{adapter}/{task}/{lang}.tsv"
    conda:
        "../../environment.yml"
    threads: cfg.runtime.threads
    resources:
        gpu=cfg.runtime.gpu,
        mem_mb=memory,
        runtime=minutes,
        batch_tokens=cfg.runtime.batch_tokens,
    params:
        cfg=stage("evaluate_task", "model", "adapter", "task", "lang"),
        code=code("evaluate_task.py"),
    script:
        "../scripts/evaluate_task.py"
