"""Functions of wildcards: what each rule reads, and the files of tables and figures."""


def task_definition(wc):
    """Return the YAML file that defines a task."""
    return definition_file(wc.task, cfg.tasks[wc.task])


def definition_file(name, entry):
    """Return the YAML file that defines the task of an entry."""
    return str(project_file(entry.definition or f"config/tasks/{name}.yaml"))


def shard_inputs(wc):
    """Return the shards of a language."""
    return [
        f"results/{wc.model}/shards/{wc.lang}/{shard}.safetensors"
        for shard in range(cfg.statistics.shards)
    ]


def like_inputs(wc):
    """Return the table that a random control mirrors."""
    like = cfg.selections[wc.selection].depends_on
    return [f"results/{wc.model}/neurons/{wc.langset}/{like}.parquet"] if like else []


def selection_code(wc):
    """Return the digests of the script and of this selection's own module."""
    own = type(cfg.selections[wc.selection]).__module__
    return code("select_neurons.py", own)


def heldout_inputs(wc):
    """Return the corpora of every language of a set."""
    return [f"results/{wc.model}/corpora/{lang}.safetensors" for lang in SETS[wc.langset]]


def training_definition(wc):
    """Return the YAML file that defines the task that is trained."""
    return definition_file(wc.finetuning, cfg.finetunings[wc.finetuning])


def adapter_inputs(wc):
    """Return what an adapter is trained on and, where it is restricted, its neurons."""
    adapter = cfg.adapters(wc.model)[wc.adapter]
    entry = cfg.finetunings[adapter.finetuning]
    rows = from_points("adapters", wc.points).points("rows")
    if entry.is_text:
        inputs = {"corpus": f"results/{wc.model}/corpora/{entry.language}.safetensors"}
    else:
        inputs = {"definition": definition_file(adapter.finetuning, entry)}
        inputs["rows"] = f"resources/training/{rows}/{adapter.finetuning}.jsonl"
    if adapter.selection is not None:
        folder = f"results/{wc.model}/neurons/{adapter.langset}"
        inputs["neurons"] = f"{folder}/{adapter.selection}.parquet"
    return inputs


def reporting(wc):
    """Return where the Trainer reports as well; no result depends on it."""
    return cfg.finetunings[cfg.adapters(wc.model)[wc.adapter].finetuning].training.report_to


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
    protocol = from_points("evaluation", wc.points)
    inputs["rows"] = f"resources/tasks/{protocol.points('rows')}/{wc.task}/{wc.lang}.jsonl"
    if adapter is not None:
        folder = f"results/{wc.model}/adapters/{protocol.points('adapters')}/{wc.adapter}"
        inputs["adapter"] = f"{folder}/adapter_model.safetensors"
    return inputs


def table(*names):
    """Return the files of tables, by name."""
    files = []
    for name in names:
        path = f"results/tables/{PAPER}/{name}"
        shown = report(
            f"{path}.csv",
            caption="../report/table.rst",
            category="Tables",
            labels={"table": name},
        )
        files += [shown, f"{path}.md", f"{path}.tex"]
    return files


def figure(path, caption, category, **labels):
    """Return the SVG (shown in the report) and the PNG of a figure."""
    path = f"results/figures/{PAPER}/{path}"
    shown = report(
        f"{path}.svg", caption=f"../report/{caption}.rst", category=category, labels=labels
    )
    return {"svg": shown, "png": f"{path}.png"}


def set_selections(model, label):
    """Return the selections that a model has on a language set."""
    return [selection for langset, selection in cfg.cells(model) if langset == label]


def label_tables(wc):
    """Return the neuron tables of every selection on a set."""
    folder = cfg.directory(wc.label)
    names = set_selections(wc.model, wc.label)
    return [f"results/{wc.model}/neurons/{folder}/{name}.parquet" for name in names]


def label_table(wc):
    """Return the neuron table of one selection on a set."""
    return f"results/{wc.model}/neurons/{cfg.directory(wc.label)}/{wc.selection}.parquet"


def label_matrices(wc):
    """Return the perplexity matrices of every selection on a set under one intervention."""
    folder = cfg.directory(wc.label)
    points = cfg.protocols[wc.protocol].points("perplexity")
    return [
        f"results/{wc.model}/perplexity/{points}/{langset}/{selection}/{wc.intervention}.parquet"
        for langset, selection, intervention in cfg.perplexity_cells(wc.model)
        if langset == folder and intervention == wc.intervention
    ]


def model_statistics(wc):
    """Return the statistics of every language of a model."""
    langs = cfg.model_languages(wc.model)
    return [f"results/{wc.model}/activations/{lang}.safetensors" for lang in langs]


def task_records(wc):
    """Return the records of a task in every language."""
    points = cfg.protocols[wc.protocol].points("evaluation")
    return [
        f"results/{wc.model}/evaluation/{points}/{adapter}/{task}/{lang}.parquet"
        for adapter, task, lang in cfg.evaluations(wc.model)
        if task == wc.task
    ]


def curve_files(wc):
    """Return the curves of every adapter of a fine-tuning."""
    points = cfg.protocols[wc.protocol].points("adapters")
    return [
        f"results/{wc.model}/adapters/{points}/{name}/curves.parquet"
        for name, adapter in cfg.adapters(wc.model).items()
        if adapter.finetuning == wc.finetuning
    ]


def renamed(prefix, files):
    """Return named files with a prefix to each name."""
    return {prefix + name: path for name, path in files.items()}


def drawn_figure(wc):
    """Return the figure that a named figure is, as SVG and PNG."""
    path = figure_path(cfg, wc.figure)
    return [path, path.removesuffix("svg") + "png"]


def about_figure(name):
    """Return what a named figure shows, for its caption."""
    shown = stage_parameters(cfg, "show")
    one = cfg.results.figures[name].model_dump(exclude_none=True)
    for key, labels in (("model", "models"), ("selection", "selections")):
        if key in one:
            one[key] = shown[labels][one[key]]
    return one
