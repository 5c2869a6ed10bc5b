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
    """Return where published neurons of a selection lie on disk; what they are is a parameter."""
    path = cfg.selections[wc.selection].file_of(wc.model)
    return str(project_file(path)) if path else "none"


def fetched_mask(wc):
    """Return the published neurons of a selection that are fetched from the hub."""
    repo = getattr(cfg.selections[wc.selection], "repo", None)
    return [] if repo is None else f"resources/masks/{wc.model}/{wc.selection}.safetensors"


def selection_weights(wc):
    """Return the manifest of the weights, for a selection that reads them."""
    needed = "weights" in cfg.selections[wc.selection].needs_more
    return [f"resources/models/{wc.model}/manifest.json"] if needed else []


def until_weights(model):
    """Return the manifest of the weights, for a selection that stops the reading and reads them."""
    names = cfg.with_dependencies(cfg.statistics.until.selection)
    needed = any("weights" in cfg.selections[name].needs_more for name in names)
    return [f"resources/models/{model}/manifest.json"] if needed else []


def until_code(wc):
    """Return the digests of the script and of the modules of the selections that it makes."""
    names = cfg.with_dependencies(cfg.statistics.until.selection)
    return code("collect_until.py", *(type(cfg.selections[one]).__module__ for one in names))


def selection_attributions(wc):
    """Return the attributions of every language of a set, for a selection that reads them."""
    needed = "attributions" in cfg.selections[wc.selection].needs_more
    langs = SETS[wc.langset] if needed else ()
    return [f"results/{wc.model}/attribution/{lang}.safetensors" for lang in langs]


def selection_code(wc):
    """Return the digests of the script and of this selection's own module."""
    own = type(cfg.selections[wc.selection]).__module__
    return code("select_neurons.py", own)


def set_slices(wc):
    """Return the slices of every language of a set, and of those that it is compared with."""
    others = cfg.comparisons(wc.model, wc.langset, wc.selection).values()
    langs = [lang for folder in (wc.langset, *others) for lang in SETS[folder]]
    return slice_files(cfg, wc.model, dict.fromkeys(langs))


def stability_weights(wc):
    """Return the manifest of the weights, for selections that read them."""
    names = cfg.with_dependencies(wc.selection)
    needed = any("weights" in cfg.selections[name].needs_more for name in names)
    return [f"resources/models/{wc.model}/manifest.json"] if needed else []


def stability_code(wc):
    """Return the digests of the script and of the modules of the selections that it makes."""
    names = cfg.with_dependencies(wc.selection)
    return code("measure_stability.py", *(type(cfg.selections[one]).__module__ for one in names))


def browsed_tables(wc):
    """Return the neuron tables whose neurons get pages, in the configuration's order."""
    names = cfg.browsed(wc.model)[wc.langset]
    return [f"results/{wc.model}/neurons/{wc.langset}/{name}.parquet" for name in names]


def set_tables(wc):
    """Return every neuron table of a language set."""
    names = [name for langset, name in cfg.cells(wc.model) if cfg.directory(langset) == wc.langset]
    return [
        f"results/{wc.model}/neurons/{wc.langset}/{name}.parquet" for name in dict.fromkeys(names)
    ]


def tried_tables(wc):
    """Return the neuron tables of a method's settings."""
    names = cfg.trials.methods[wc.method].selections
    return [f"results/{wc.model}/neurons/{wc.langset}/{name}.parquet" for name in names]


def tried_corpora(wc):
    """Return the corpora of every language that is read in a trial."""
    langs = [*SETS[wc.langset], *cfg.trials.evaluated]
    return [f"results/{wc.model}/corpora/{lang}.safetensors" for lang in langs]


def heldout_inputs(wc):
    """Return the corpora of every language of a set."""
    return [f"results/{wc.model}/corpora/{lang}.safetensors" for lang in SETS[wc.langset]]


def lens_corpora(wc):
    """Return the corpora of the languages of a set whose tokens are told apart."""
    return [f"results/{wc.model}/corpora/{lang}.safetensors" for lang in spoken(SETS[wc.langset])]


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


def answer_names(wc):
    """Return the selections among which a method is tuned under a variant."""
    printed = cfg.under("answering", wc.variant).tuning == "paper"
    return cfg.answers.options(wc.method, printed).selections


def answer_tables(wc):
    """Return the neuron tables among which a method is tuned."""
    folder = f"results/{wc.model}/neurons/{wc.langset}"
    return [f"{folder}/{name}.parquet" for name in answer_names(wc)]


def answer_statistics(wc):
    """Return the statistics of the set, for a method that writes."""
    return list(statistics_of_set(wc).values()) if answer_names(wc) else []


def answer_questions(wc):
    """Return the questions of every source language."""
    return question_files("answers", wc.langset)


def answer_ratings(wc):
    """Return the ratings of every judge."""
    judges = cfg.answers.judge.models if cfg.answers.judge else ()
    folder = f"results/{wc.model}/answers/{wc.variant}/{wc.langset}/{wc.method}"
    return [f"{folder}/{wc.phase}.{judge}.parquet" for judge in judges]


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


def about_files():
    """Return the file beside each fetched one that says where its rows come from."""
    rules = ("fetch_text", "vary_text", "prepare_task", "prepare_facts", "prepare_training")
    fetched = [path for rule in (*rules, "prepare_questions") for path in files(rule)]
    return [path.removesuffix("l") for path in fetched]


def task_records(model, protocol):
    """Return a function of the records of every task of a model under a protocol."""

    def inputs(wc):
        variant = cfg.protocols[protocol].variant("evaluation")
        return [
            f"results/{model}/evaluation/{variant}/{adapter}/{task}/{lang}.parquet"
            for adapter, task, lang in cfg.evaluations(model)
        ]

    return inputs


def score_files(model, protocol):
    """Return the scores of the tasks that a model is evaluated on."""
    tasks = dict.fromkeys(task for _, task, _ in cfg.evaluations(model))
    return [f"results/scores/{PAPER}/{model}/{protocol}/{task}.parquet" for task in tasks]


def all_score_files():
    """Return the scores of every model, protocol and task."""
    pairs = [(model, protocol) for model in cfg.models for protocol in cfg.protocols]
    return [path for pair in pairs for path in score_files(*pair)]


def read_files(kind):
    """Return the files of a kind that a family of tables may read."""
    if kind in ("forcing", "fallback"):
        return judged_files(kind)
    own = {"activations": statistics_files, "scores": all_score_files, "fetched": about_files}
    if kind in own:
        return own[kind]()
    if kind == "printed":
        return [PRINTED]
    rules = {
        "neurons": "select_neurons",
        "perplexity": "measure_perplexity",
        "steering": "measure_lss",
        "trials": "try_method",
        "answers": "score_answers",
        "evaluation": "evaluate_task",
        "lens": "read_layers",
        "stability": "measure_stability",
        "until": "collect_until",
        "manifests": "prepare_model",
        "corpora": "pack_corpus",
    }
    return files(rules.get(kind, kind))


def judged_files(analysis):
    """Return the judged texts of an analysis."""
    stage = STAGES["judge_texts"]
    return [stage.file(cell) for cell in stage.cells(cfg) if cell["analysis"] == analysis]


def table_inputs(families):
    """Return functions of the inputs of families of tables, by family and name."""
    return {
        f"{family}_{name}": lambda wc, kind=kind: read_files(kind)
        for family in families
        for name, kind in FAMILIES[family].reads(cfg).items()
    }


def table_outputs(families):
    """Return the files of the tables of families; the CSV is shown in Snakemake's report."""
    files = []
    for name in [table for family in families for table in TABLES[family]]:
        path = f"results/tables/{PAPER}/{name}"
        shown = report(
            f"{path}.csv",
            caption="../report/table.rst",
            category="Tables",
            labels={"table": name},
        )
        files += [shown, f"{path}.md", f"{path}.tex"]
    return files


def drawing_inputs(model, protocol):
    """Return a function of the files that the figures of a model and protocol are drawn from."""

    def inputs(wc):
        read = (KINDS[one.kind].reads(cfg, one.cell) for one in drawn(model, protocol))
        return list(dict.fromkeys(path for files in read for path in files))

    return inputs


def drawing_modules(model, protocol):
    """Return the modules that draw the figures of a model and protocol."""
    return sorted({KINDS[one.kind].module for one in drawn(model, protocol)})


def drawing_outputs(model, protocol):
    """Return SVG (shown in Snakemake's report), PNG and caption of each figure."""
    files = []
    for one in drawn(model, protocol):
        category, labels = KINDS[one.kind].category, report_labels(one.cell)
        files += [shown_figure(one.stem, category, labels), f"{one.stem}.png", f"{one.stem}.rst"]
    return files


def shown_figure(stem, category, labels):
    """Return the SVG of a figure, shown in Snakemake's report with the caption beside it."""
    caption = str(Path(f"{stem}.rst").absolute())
    return report(f"{stem}.svg", caption=caption, category=category, labels=labels)
