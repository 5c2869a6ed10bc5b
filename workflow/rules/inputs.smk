"""Functions of wildcards: what each rule reads, and the files of tables and figures."""


def task_definition(wc):
    """Return the YAML file that defines a task, under the protocol of its evaluation."""
    protocol = cfg.under("evaluation", wc.variant)
    return definition_file(wc.task, cfg.tasks[wc.task].under(protocol))


def items_definition(wc):
    """Return the YAML file that defines a task, under the protocol of its items."""
    return definition_file(wc.task, cfg.tasks[wc.task].under(cfg.under("items", wc.variant)))


def definition_file(name, entry):
    """Return the YAML file that defines the task of an entry."""
    return str(project_file(entry.definition or f"config/tasks/{name}.yaml"))


def shard_inputs(wc):
    """Return the shards of a language."""
    return [
        f"results/{wc.model}/shards/{wc.lang}/{shard}.safetensors"
        for shard in range(cfg.statistics.shards)
    ]


def selection_inputs(wc):
    """Return the tables of the selections that one depends on, in its order."""
    names = cfg.selections[wc.selection].depends_on
    return [f"results/{wc.model}/neurons/{wc.langset}/{name}.parquet" for name in names]


def mask(wc):
    """Return where the published mask of a selection lies; what it holds is a parameter."""
    path = cfg.selections[wc.selection].file(wc.model)
    return str(project_file(path)) if path else "none"


def selection_code(wc):
    """Return the digests of the script and of this selection's own module."""
    own = type(cfg.selections[wc.selection]).__module__
    return code("select_neurons.py", own)


def heldout_inputs(wc):
    """Return the corpora of every language of a set."""
    return [f"results/{wc.model}/corpora/{lang}.safetensors" for lang in SETS[wc.langset]]


def fact_inputs(wc):
    """Return the facts of every premise language of a set, in the order of the job."""
    return [f"resources/facts/{lang}.jsonl" for lang in cfg.lss_languages(wc.langset)[0]]


def fact_abouts(wc):
    """Return the file beside each of these that says where its facts come from."""
    return [path.removesuffix("l") for path in fact_inputs(wc)]


def training_definition(wc):
    """Return the YAML file that defines the task that is trained."""
    return definition_file(wc.finetuning, cfg.finetunings[wc.finetuning])


def adapter_inputs(wc):
    """Return what an adapter is trained on and, where it is restricted, its neurons."""
    adapter = cfg.adapters(wc.model)[wc.adapter]
    entry = cfg.finetunings[adapter.finetuning]
    rows = cfg.under("adapters", wc.variant).variant("rows")
    if entry.is_text:
        inputs = {"corpus": f"results/{wc.model}/corpora/{entry.language}.safetensors"}
    else:
        inputs = {"definition": definition_file(adapter.finetuning, entry)}
        items = f"resources/training/{rows}/{adapter.finetuning}"
        inputs |= {"rows": f"{items}.jsonl", "about": f"{items}.json"}
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
        for langset, selection, _, _ in conditions
    }
    langs = {lang for langset, _, _, _ in conditions for lang in SETS[langset]}
    statistics = {f"results/{wc.model}/activations/{lang}.safetensors" for lang in langs}
    inputs = {"neurons": sorted(tables), "statistics": sorted(statistics)}
    protocol = cfg.under("evaluation", wc.variant)
    items = f"resources/tasks/{protocol.variant('items')}/{wc.task}/{wc.lang}"
    inputs |= {"rows": f"{items}.jsonl", "about": f"{items}.json"}
    if adapter is not None:
        folder = f"results/{wc.model}/adapters/{protocol.variant('adapters')}/{wc.adapter}"
        inputs["adapter"] = f"{folder}/adapter_model.safetensors"
    return inputs


def question_files(analysis, langset):
    """Return the questions that an analysis asks on a set, by language."""
    asked, _ = entry_languages(getattr(cfg, analysis), SETS[langset])
    return [f"resources/questions/{analysis}/{lang}.jsonl" for lang in asked]


def forcing_questions(wc):
    """Return the questions of every source language."""
    return question_files("forcing", wc.langset)


def fallback_questions(wc):
    """Return the questions in the one language of the fallback."""
    (path,) = question_files("fallback", wc.langset)
    return path


def lens_questions(wc):
    """Return the questions of every prompt language."""
    return question_files("lens", wc.langset)


def lens_tables(wc):
    """Return the neuron tables of the lens's conditions."""
    names = sorted({selection for selection, _, _ in cfg.lens_cells(wc.model)[wc.langset]})
    return [f"results/{wc.model}/neurons/{wc.langset}/{name}.parquet" for name in names]


def lens_statistics(wc):
    """Return the statistics of the set's languages where something is written."""
    conditions = cfg.lens_cells(wc.model)[wc.langset]
    return list(statistics_of_set(wc).values()) if conditions else []


def judged_files(analysis, model=None, protocol=None, label=None, intervention=None):
    """Return the judged texts of an analysis: all, or those of one figure."""
    variants = cfg.variants("generation")
    variants = variants if protocol is None else [cfg.protocols[protocol].variant("generation")]
    return [
        f"results/{one}/judged/{analysis}/{variant}/{langset}/{selection}/{name}.parquet"
        for one in ([model] if model else cfg.models)
        for variant in variants
        for langset, selection, name in cfg.generation_cells(one, analysis)
        if label is None or langset == cfg.directory(label)
        if intervention in (None, name)
    ]


def label_judged(analysis, wc):
    """Return the judged texts of every selection on a set under one intervention."""
    return judged_files(analysis, wc.model, wc.protocol, wc.label, wc.intervention)


def lens_files():
    """Return the records of the logit lens of every model and set."""
    return [
        f"results/{model}/lens/{variant}/{langset}.parquet"
        for model in cfg.models
        for variant in cfg.variants("generation")
        for langset in cfg.lens_cells(model)
    ]


def label_lens(wc):
    """Return the records of the logit lens on one set."""
    variant = cfg.protocols[wc.protocol].variant("generation")
    return f"results/{wc.model}/lens/{variant}/{cfg.directory(wc.label)}.parquet"


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
    variant = cfg.protocols[wc.protocol].variant("perplexity")
    return [
        f"results/{wc.model}/perplexity/{variant}/{langset}/{selection}/{wc.intervention}.parquet"
        for langset, selection, intervention in cfg.perplexity_cells(wc.model)
        if langset == folder and intervention == wc.intervention
    ]


def label_shifts(wc):
    """Return the steering shift of every selection on a set, under one intervention or all.

    All are those of no sweep, or those of the sweep that is named.
    """
    sweep = wc.get("sweep")
    folder = cfg.directory(wc.label)
    variant = cfg.protocols[wc.protocol].variant("steering")
    return [
        f"results/{wc.model}/lss/{variant}/{langset}/{selection}/{intervention}.parquet"
        for langset, selection, intervention in cfg.lss_cells(wc.model)
        if langset == folder
        and wc.get("intervention") in (None, intervention)
        and (SWEPT.get(intervention) == sweep or "intervention" in wc.keys())
    ]


def model_statistics(wc):
    """Return the statistics of every language of a model."""
    langs = cfg.model_languages(wc.model)
    return [f"results/{wc.model}/activations/{lang}.safetensors" for lang in langs]


def task_records(wc):
    """Return the records of a task in every language."""
    variant = cfg.protocols[wc.protocol].variant("evaluation")
    return [
        f"results/{wc.model}/evaluation/{variant}/{adapter}/{task}/{lang}.parquet"
        for adapter, task, lang in cfg.evaluations(wc.model)
        if task == wc.task
    ]


def task_scores(wc):
    """Return the scores of a task."""
    return f"results/scores/{PAPER}/{wc.model}/{wc.protocol}/{wc.task}.parquet"


def score_files():
    """Return the scores of every task that a model is evaluated on."""
    return [
        f"results/scores/{PAPER}/{model}/{protocol}/{task}.parquet"
        for model in cfg.models
        for protocol in cfg.protocols
        for task in dict.fromkeys(task for _, task, _ in cfg.evaluations(model))
    ]


def curve_files(wc):
    """Return the curves of every adapter of a fine-tuning."""
    variant = cfg.protocols[wc.protocol].variant("adapters")
    return [
        f"results/{wc.model}/adapters/{variant}/{name}/curves.parquet"
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
    shown = stage_parameters(cfg, "show")["caption"]
    one = cfg.results.figures[name].model_dump(exclude_none=True)
    for key in ("model", "selection", "task", "intervention"):
        if key in one:
            one[key] = shown[f"{key}s"].get(one[key], one[key])
    return one | {"item": quoted(one["item"])}


def corpus_files():
    """Return the packed corpus of every model and language."""
    return [
        f"results/{model}/corpora/{lang}.safetensors"
        for model in cfg.models
        for lang in cfg.model_languages(model)
    ]


def about_files():
    """Return the file beside each fetched one that says where its rows come from."""
    fetched = [path for path in resource_files() if path.endswith(".jsonl")]
    for analysis in ("forcing", "fallback", "lens"):
        for folder in sorted(
            {cell[0] for model in cfg.models for cell in asked_cells(model, analysis)}
        ):
            fetched += question_files(analysis, folder)
    return [path.removesuffix("l") for path in dict.fromkeys(fetched)]


def asked_cells(model, analysis):
    """Return the cells of an analysis that asks questions, each with its set's folder first."""
    if analysis == "lens":
        return [(folder,) for folder in cfg.lens_cells(model)]
    return cfg.generation_cells(model, analysis)
