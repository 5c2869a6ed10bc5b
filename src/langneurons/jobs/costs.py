"""What a run would cost before anything runs: jobs, GPU hours, peak memory and disk per stage.

Estimates follow from stated assumptions (config/plan.yaml): a forward pass takes 2 floating-point
operations per parameter and token, a LoRA step 4 (no gradient of frozen weights), divided by the
device's peak times the share of it that is reached; decoding is bound by reading the weights once
per token. Where jobs of a rule and model have run, the mean of their measured times and the largest
of their measured memory replace the estimate.
"""

import csv
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from langneurons.activations.histogram import N_BINS
from langneurons.base.errors import ConfigError, nearest
from langneurons.base.paths import user_path
from langneurons.base.shipped import project_file
from langneurons.base.yaml import parse_yaml
from langneurons.config import Config
from langneurons.config.config import entry_languages
from langneurons.data.mini_data import FACTS, QUESTIONS, mini_file
from langneurons.evaluation.settings import source_paths
from langneurons.models import geometry
from langneurons.models.geometry import Geometry, host_bytes
from langneurons.training.settings import Adapter, FinetuneEntry, Training

GB = 1e9
ASSUMPTIONS = "config/plan.yaml"
TEXT_BYTES_PER_TOKEN = 5.0
TOKEN_BYTES = 9.0  # identifier, document, flags of a packed token
DEFAULT_RATE = 0.01  # share of the neurons that a selection without a rate is taken to choose
FILLED = 0.95  # of a GPU's memory; the rest is the driver's and lost between blocks
MANY_LOGITS = 2**27  # as in langneurons.training.losses, which this module may not import
LOADED = re.compile(r"^\S+ loaded .*, ([\d.]+) s$", re.MULTILINE)
RECORD_BYTES = 60.0  # a compressed row of the evaluation records


@dataclass(frozen=True)
class Stage:
    """One line of the plan. Memory in GB is the largest of a job, on one of its GPUs.

    Hours of a job that asks for several GPUs count each of them, though they compute in turn.
    """

    rule: str
    model: str
    jobs: int
    done: int
    million_tokens: float
    gpu_hours: float
    hours_left: float
    load_hours: float
    gpus: int
    gpu_gb: float
    host_gb: float
    disk_gb: float
    basis: str


@dataclass(frozen=True)
class Job:
    """A job: its output, the tokens it reads, the seconds it takes, the bytes it leaves."""

    output: str
    tokens: float
    seconds: float
    disk: float


class Planner:
    """The plan of one configuration in one working directory."""

    def __init__(self, config: Config, assumptions: Mapping[str, Any], folder: Path = Path()):
        self.config, self.assumed, self.folder = config, assumptions, folder

    def stages(self) -> list[Stage]:
        """Return every stage that computes, in the order of the graph."""
        found = [self._fetching()]
        for model in self.config.models:
            found += self._of_model(model)
        return [stage for stage in found if stage.jobs]

    def geometry(self, model: str) -> Geometry:
        """Return a model's size: from its files, the assumptions, or those of another size.

        Raises:
            ConfigError: nothing names the size of the model.
        """
        source = self.config.models[model].source
        found = geometry.read(model, source, self.assumed["models"], self.folder)
        if found is None:
            key, known = geometry.table_key(model, source), self.assumed["models"]
            raise ConfigError(
                f"plan: the size of models.{model} is unknown: its files are not here, and {key!r}"
                f" is not among `models` of the assumptions ({', '.join(known)})."
                f"{nearest(key, known)} Add a line there, or run"
                f" `snakemake -c 1 resources/models/{model}/manifest.json` first."
            )
        return found

    # Stages ------------------------------------------------------------------------------------

    def _fetching(self) -> Stage:
        langs = {
            lang for model in self.config.models for lang in self.config.model_languages(model)
        }
        corpus = self.config.corpus
        tokens = corpus.tokens + corpus.heldout_tokens
        size = TEXT_BYTES_PER_TOKEN * tokens
        if corpus.source.kind == "hub":
            size = min(size * 1.2, 2.0 * corpus.source.characters)
        jobs = [Job(f"resources/text/{lang}.jsonl", tokens, size / 20e6, size) for lang in langs]
        return self._stage("fetch_text", "", jobs, 0.0, 4.0)

    def gpus_needed(self, model: str) -> int | None:
        """Return how many GPUs the model's largest job needs, None if a node of 16 is too small."""
        memory = self.assumed["device"]["memory_gb"]
        for gpus in range(1, 17):
            if max(stage.gpu_gb for stage in self._of_model(model, gpus)) <= FILLED * memory:
                return gpus
        return None

    def _of_model(self, name: str, gpus: int | None = None) -> list[Stage]:
        config, entry = self.config, self.config.models[name]
        gpus = config.gpus(name) if gpus is None else gpus
        geometry = self.geometry(name)
        wide = 4 if entry.dtype == "float32" else 2
        stored = geometry.parameters * wide
        embeddings = geometry.vocabulary * geometry.hidden * 2
        held = stored
        if entry.quantization == "nf4":
            held = (geometry.parameters - embeddings) * 0.56 + embeddings * 2
        load = held / GB / self.assumed["load_gb_per_second"]
        host = host_bytes(geometry, entry.dtype, entry.quantization) / GB
        batch = config.runtime.batch_tokens
        scores = batch * geometry.vocabulary * 4  # logits in float32
        states = batch * (geometry.hidden * 8 + geometry.intermediate * 3) * wide
        neurons = geometry.layers * geometry.intermediate
        corpus, results = config.corpus, f"results/{name}"
        langs = config.model_languages(name)

        found = [
            self._stage(
                "prepare_model",
                name,
                [Job(f"resources/models/{name}/manifest.json", 0, stored / 50e6, stored)],
                0.0,
                4.0,
            )
        ]
        if entry.quantization != "none":
            # Read, quantised on a CPU in about the same time, written.
            slow = (2 * stored + held) / GB / self.assumed["load_gb_per_second"]
            jobs = [Job(config.manifest(name), 0, slow, held)]
            found.append(
                self._stage("quantize_model", name, jobs, 0.0, 0.5 * stored / GB + held / GB)
            )

        def on_each(spread: float, own: float) -> float:
            """Return GB on one GPU: its share of what lies with the layers, and what is whole."""
            coarse = held / geometry.layers if gpus > 1 else 0
            return (spread / max(gpus, 1) + coarse + own) / GB

        on_gpus = {"load": load, "gpus": gpus}
        both = corpus.tokens + corpus.heldout_tokens
        packs = [
            Job(f"{results}/corpora/{lang}.safetensors", both, both / 1e6, TOKEN_BYTES * both)
            for lang in langs
        ]
        found.append(self._stage("pack_corpus", name, packs, 0.0, 4.0 * both * 8 / GB + 1))

        shards = config.statistics.shards
        share = corpus.tokens / shards
        documents = len(config.statistics.document_means) * config.statistics.max_documents
        bytes_of = neurons * (len(config.statistics.histograms) * N_BINS * 1.2 + 3 * 48)
        bytes_of += neurons * documents * 6
        seconds = load + self._seconds(name, geometry, share, 2, "statistics")
        jobs = [
            Job(f"{results}/shards/{lang}/{shard}.safetensors", share, seconds, bytes_of)
            for lang in langs
            for shard in range(shards)
        ]
        block = config.statistics.batch_blocks * corpus.block_size
        counts = neurons * (N_BINS * 4 * len(config.statistics.histograms) + 3 * 64 + 8 * documents)
        passing = block * (geometry.hidden * 8 + geometry.intermediate * 6) * wide
        on_device = on_each(held + counts, passing)
        found.append(
            self._stage("collect_statistics", name, jobs, on_device, host + counts / GB, **on_gpus)
        )

        rows = self._perplexity_jobs(name, geometry, load)
        forward = on_each(held, scores + states)
        found.append(self._stage("measure_perplexity", name, rows, forward, host + 2, **on_gpus))
        # Keys and values of a batch, which its prompts' continuations read.
        kept = 2 * batch * geometry.layers * geometry.shared * wide
        forward = on_each(held + kept, scores + states)
        shifts = self._lss_jobs(name, geometry, load)
        found.append(self._stage("measure_lss", name, shifts, forward, host + 2, **on_gpus))
        trained = self._training_jobs(name, geometry, load)
        longest = max(
            (e.training.batch_size * e.training.max_length for e in config.finetunings.values()),
            default=0,
        )
        kept = longest * geometry.layers * (geometry.hidden * 14 + geometry.intermediate * 4) * wide
        # Rows: values, gradients and two moments in float32, eight times what is saved.
        states_of = 8 * max((job.disk for job in trained), default=0) + 0.02 * stored
        # Logits in float32, their softmax, and gradients, of a block of positions.
        logits = 16 * min(longest * geometry.vocabulary, MANY_LOGITS)
        training = on_each(held + kept + states_of, logits)
        found.append(self._stage("finetune", name, trained, training, host + 2, **on_gpus))
        evaluated = self._evaluation_jobs(name, geometry, load, held)
        found.append(self._stage("evaluate_task", name, evaluated, forward, host + 4, **on_gpus))
        for rule, analysis in (("force_language", "forcing"), ("fall_back", "fallback")):
            jobs = self._generation_jobs(analysis, name, geometry, load, held)
            found.append(self._stage(rule, name, jobs, forward, host + 2, **on_gpus))
        jobs = self._lens_jobs(name, geometry, load)
        found.append(self._stage("read_layers", name, jobs, forward, host + 2, **on_gpus))
        return found

    def _perplexity_jobs(self, name: str, geometry: Geometry, load: float) -> list[Job]:
        config, jobs = self.config, []
        if config.perplexity is None:
            return jobs
        tokens = config.perplexity.tokens or config.corpus.heldout_tokens
        sets = config.directory_languages()
        for variant in config.variants("perplexity"):
            for langset, selection, intervention in config.perplexity_cells(name):
                size = len(sets[langset])
                read = tokens * size * (size + 1)
                seconds = load + self._seconds(name, geometry, read, 2, "perplexity")
                place = f"perplexity/{variant}/{langset}/{selection}/{intervention}.parquet"
                jobs.append(Job(f"results/{name}/{place}", read, seconds, read / 20))
        return jobs

    def _lss_jobs(self, name: str, geometry: Geometry, load: float) -> list[Job]:
        """Return the jobs of the steering shift; the first also scores the untouched model."""
        config, jobs, seen = self.config, [], set()
        for variant in config.variants("steering") if config.lss is not None else ():
            for langset, selection, intervention in config.lss_cells(name):
                bases, targets = config.lss_languages(langset)
                facts = self._facts(bases[0])
                pairs = sum(base != target for base in bases for target in targets)
                read = 2 * facts * pairs * self._item_tokens("lss")
                if (variant, langset) not in seen:
                    read += facts * len(bases) * (1 + len(targets)) * self._item_tokens("lss")
                    seen.add((variant, langset))
                seconds = load + self._seconds(name, geometry, read, 2, "evaluation")
                place = f"lss/{variant}/{langset}/{selection}/{intervention}.parquet"
                size = facts * pairs * RECORD_BYTES
                jobs.append(Job(f"results/{name}/{place}", read, seconds, size))
        return jobs

    def _facts(self, lang: str) -> int:
        """Return how many facts a premise language has."""
        source, limit = self.config.lss.source, self.config.lss.limit
        rows = self.assumed["default_rows"]
        if source.kind == "hub":
            rows = self.assumed["rows"].get(source.dataset, {}).get(source.split, rows)
        else:
            path = mini_file(FACTS, lang)
            path = path if source.kind == "mini" else user_path(source.path, {"lang": lang})
            if path.is_file():
                rows = sum(1 for _ in path.open("rb"))
        return min(rows, limit) if limit else rows

    def _training_jobs(self, name: str, geometry: Geometry, load: float) -> list[Job]:
        jobs = []
        for variant in self.config.variants("adapters"):
            protocol = self.config.under("adapters", variant)
            for adapter, one in self.config.adapters(name).items():
                entry = self.config.finetunings[one.finetuning].under(protocol)
                training = entry.training
                rows, width = self._training_rows(one.finetuning, entry)
                steps = training.batch_size * training.accumulate
                tokens = rows * training.epochs * width
                if training.max_steps:
                    tokens = min(tokens, training.max_steps * steps * width)
                seconds = load + self._seconds(name, geometry, tokens, 4, "training")
                if entry.is_text:
                    heldout = entry.source.heldout_tokens or self.config.corpus.heldout_tokens
                    seconds += self._seconds(name, geometry, 2 * heldout, 2, "perplexity")
                size = self._trained_bytes(geometry, one, training)
                output = f"results/{name}/adapters/{variant}/{adapter}/adapter_model.safetensors"
                jobs.append(Job(output, tokens, seconds, size))
        return jobs

    def _training_rows(self, name: str, entry: FinetuneEntry) -> tuple[float, float]:
        """Return how many rows are trained on, and their tokens."""
        training = entry.training
        if entry.is_text:
            tokens = entry.source.tokens or self.config.corpus.tokens
            return tokens / training.max_length, training.max_length
        task = self._definition(name, entry)
        width = min(training.max_length, self._item_tokens(task["name"]))
        if training.pooling == "last_position" and task["kind"] == "classification":
            width = training.max_length
        return self._rows(task, entry, None), width

    def _trained_bytes(self, geometry: Geometry, one: Adapter, training: Training) -> float:
        """Return the size of what is saved."""
        projections = len(training.projections)
        if training.parameters == "rows":
            share = {"all": 1.0, "none": 0.0}.get(one.choice)
            if share is None:
                selection = self.config.selections[one.selection]
                others = [self.config.selections[name] for name in selection.depends_on]
                selection = others[0] if others else selection
                share = getattr(selection, "rate", DEFAULT_RATE)
            neurons = share * geometry.layers * geometry.intermediate
            return 2 * neurons * geometry.hidden * projections
        size = 4 * training.rank * geometry.layers * geometry.hidden * 8
        if one.choice != "none":
            wide = geometry.hidden + geometry.intermediate
            size += 4 * training.rank * geometry.layers * wide * projections
        return size

    def _evaluation_jobs(
        self, name: str, geometry: Geometry, load: float, held: float
    ) -> list[Job]:
        config, jobs = self.config, []
        adapters = config.adapters(name)
        for variant in config.variants("evaluation"):
            protocol = config.under("evaluation", variant)
            for adapter, task, lang in config.evaluations(name):
                entry = config.tasks[task].under(protocol)
                definition = self._definition(task, entry)
                one = adapters.get(adapter)
                conditions = 1 + len(config.task_conditions(name, task, lang, one))
                rows = self._rows(definition, entry, entry.limit)
                width = self._item_tokens(definition["name"])
                choice = definition["kind"] == "multiple_choice"
                read = conditions * rows * width * (len(definition["choices"]) if choice else 1)
                seconds = load + self._seconds(name, geometry, read, 2, "evaluation")
                if definition["kind"] == "generation":
                    batch = max(1, config.runtime.batch_tokens // width)
                    new = definition.get("max_new_tokens", 32)
                    seconds += conditions * math.ceil(rows / batch) * new * self._decode(held)
                place = f"evaluation/{variant}/{adapter}/{task}/{lang}.parquet"
                size = conditions * rows * RECORD_BYTES
                jobs.append(Job(f"results/{name}/{place}", read, seconds, size))
        return jobs

    def _generation_jobs(
        self, analysis: str, name: str, geometry: Geometry, load: float, held: float
    ) -> list[Job]:
        config, jobs = self.config, []
        entry = getattr(config, analysis)
        for variant in config.variants("generation") if entry is not None else ():
            for langset, selection, intervention in config.generation_cells(name, analysis):
                asked, written = entry_languages(entry, config.directory_languages()[langset])
                answers = (len(written) + 1) * sum(self._questions(entry, lang) for lang in asked)
                width = self._item_tokens("question") + entry.max_new_tokens
                batch = max(1, config.runtime.batch_tokens // width)
                seconds = load + self._seconds(name, geometry, answers * width, 2, "evaluation")
                seconds += math.ceil(answers / batch) * entry.max_new_tokens * self._decode(held)
                place = f"texts/{analysis}/{variant}/{langset}/{selection}/{intervention}.parquet"
                size = answers * (RECORD_BYTES + TEXT_BYTES_PER_TOKEN * entry.max_new_tokens)
                jobs.append(Job(f"results/{name}/{place}", answers * width, seconds, size))
        return jobs

    def _lens_jobs(self, name: str, geometry: Geometry, load: float) -> list[Job]:
        config, jobs = self.config, []
        for variant in config.variants("generation") if config.lens is not None else ():
            for langset, conditions in config.lens_cells(name).items():
                members = config.directory_languages()[langset]
                asked, _ = entry_languages(config.lens, members)
                questions = sum(self._questions(config.lens, lang) for lang in asked)
                rows = (len(conditions) + 1) * questions
                read = rows * self._item_tokens("question")
                # The head runs at one position of every layer.
                heads = rows * geometry.layers * geometry.hidden * geometry.vocabulary
                seconds = self._seconds(
                    name, geometry, read + heads / geometry.parameters, 2, "evaluation"
                )
                output = f"results/{name}/lens/{variant}/{langset}.parquet"
                size = rows * geometry.layers * len(members) * RECORD_BYTES
                jobs.append(Job(output, read, load + seconds, size))
        return jobs

    def _questions(self, entry: Any, lang: str) -> int:
        """Return how many questions of a language are asked."""
        source = entry.questions
        path = mini_file(QUESTIONS, lang)
        if source.kind == "jsonl":
            path = user_path(source.path, {"lang": lang})
        rows = self.assumed["default_questions"]
        if path.is_file():
            rows = sum(1 for _ in path.open("rb"))
        return min(rows, entry.limit) if entry.limit else rows

    # Costs -------------------------------------------------------------------------------------

    def _seconds(
        self, model: str, geometry: Geometry, tokens: float, operations: int, stage: str
    ) -> float:
        speed = self.assumed["device"]["tflops"] * 1e12 * self.assumed["utilisation"][stage]
        slow = self.config.models[model].quantization == "nf4"
        factor = self.assumed["nf4_slowdown"] if slow else 1.0
        return tokens * operations * geometry.parameters * factor / speed

    def _decode(self, held: float) -> float:
        bandwidth = self.assumed["device"]["bandwidth_gb"] * GB
        return held / (bandwidth * self.assumed["utilisation"]["decoding"])

    def _definition(self, name: str, entry: Any) -> dict[str, Any]:
        path = project_file(entry.definition or f"config/tasks/{name}.yaml")
        return parse_yaml(path.read_text(encoding="utf-8"), str(path))

    def _item_tokens(self, task: str) -> int:
        return self.assumed["tokens_per_item"].get(task, self.assumed["default_tokens_per_item"])

    def _rows(self, task: Mapping[str, Any], entry: Any, limit: int | None) -> float:
        """Return how many rows an entry uses of its data set."""
        source = entry.source
        lang = getattr(entry, "language", None) or entry.languages[0]
        if source.kind == "hub":
            hub = task.get("hub", {})
            sizes = self.assumed["rows"].get(source.dataset or hub.get("dataset"), {})
            split = source.split or hub.get("split", "test")
            rows = sizes.get(split, self.assumed["default_rows"])
        elif source.kind == "mini":
            path = mini_file(source.name or task["name"], lang)
            rows = sum(1 for _ in path.open("rb"))
        else:
            code = task.get("codes", {}).get(lang, lang)
            path = user_path(
                next(iter(source_paths(source).values())), {"lang": lang, "code": code}
            )
            rows = self.assumed["default_rows"]
            if path.is_file():
                rows = sum(1 for _ in path.open("rb"))
        rows = round(rows * entry.rows[1]) - round(rows * entry.rows[0])
        return min(rows, limit) if limit else rows

    def _stage(
        self,
        rule: str,
        model: str,
        jobs: Iterable[Job],
        gpu_gb: float,
        host_gb: float,
        load: float = 0.0,
        gpus: int = 0,
    ) -> Stage:
        jobs, count = list(jobs), max(gpus, 1)
        done = [job for job in jobs if (self.folder / job.output).exists()]
        measured, memory = self._measured(rule, model) if done else ([], [])
        mean = sum(measured) / len(measured) if measured else None
        assumed = {job.output: job.seconds for job in jobs}
        if mean is not None:
            # Jobs of a rule differ in size: the measured mean belongs to the mean of those done.
            sizes = [job.seconds for job in done] or [job.seconds for job in jobs]
            scale = mean / max(sum(sizes) / len(sizes), 1e-9)
            assumed = {output: seconds * scale for output, seconds in assumed.items()}
        finished = {job.output for job in done}
        left = sum(seconds for output, seconds in assumed.items() if output not in finished)
        return Stage(
            rule=rule,
            model=model,
            jobs=len(jobs),
            done=len(done),
            million_tokens=sum(job.tokens for job in jobs) / 1e6,
            gpu_hours=count * sum(assumed.values()) / 3600 if gpu_gb else 0.0,
            hours_left=count * left / 3600,
            load_hours=count * len(jobs) * self._load(rule, model, load) / 3600,
            gpus=gpus,
            gpu_gb=gpu_gb if gpus else 0.0,
            host_gb=max(memory, default=host_gb + (0 if gpus else gpu_gb)),
            disk_gb=sum(job.disk for job in jobs) / GB,
            basis=f"measured, {len(measured)} jobs" if measured else "assumed",
        )

    def _load(self, rule: str, model: str, assumed: float) -> float:
        """Return the seconds a job takes to load the model: measured, as logs tell, or assumed."""
        if not assumed:
            return 0.0
        found = []
        for path in sorted((self.folder / "logs" / rule / model).rglob("*.log")):
            found += map(float, LOADED.findall(path.read_text(encoding="utf-8", errors="replace")))
        return sum(found) / len(found) if found else assumed

    def _measured(self, rule: str, model: str) -> tuple[list[float], list[float]]:
        """Return seconds and peak memory in GB of finished jobs (Snakemake's benchmark files)."""
        seconds, memory = [], []
        for path in sorted((self.folder / "benchmarks/results" / rule / model).rglob("*.tsv")):
            with path.open(encoding="utf-8") as file:
                for row in csv.DictReader(file, delimiter="\t"):
                    seconds.append(float(row["s"]))
                    if row.get("max_rss", "NA") not in ("NA", "-"):
                        memory.append(float(row["max_rss"]) / 1000)
        return seconds, memory


def text(stages: list[Stage], planner: Planner) -> str:
    """Return the plan as a table with totals and the assumptions it rests on."""
    heads = ("stage", "model", "jobs", "done", "M tokens", "GPU h", "h left")
    heads += ("GPUs", "GPU GB", "host GB", "disk GB", "basis")
    rows = [heads]
    for one in stages:
        numbers = (one.million_tokens, one.gpu_hours, one.hours_left)
        row = (one.rule, one.model, str(one.jobs), str(one.done), *map(_rounded, numbers))
        sizes = (one.gpu_gb, one.host_gb, one.disk_gb)
        rows.append((*row, str(one.gpus), *map(_rounded, sizes), one.basis))
    hours = sum(one.gpu_hours for one in stages)
    left = sum(one.hours_left for one in stages if one.gpu_hours)
    total = ("total", "", sum(one.jobs for one in stages), sum(one.done for one in stages))
    total += (_rounded(sum(one.million_tokens for one in stages)), _rounded(hours), _rounded(left))
    total += (str(max(one.gpus for one in stages)), _rounded(max(s.gpu_gb for s in stages)))
    total += (_rounded(max(one.host_gb for one in stages)),)
    total += (_rounded(sum(one.disk_gb for one in stages)), "")
    rows.append(tuple(map(str, total)))
    widths = [max(len(row[i]) for row in rows) for i in range(len(heads))]
    lines = []
    for row in rows:
        cells = [
            cell.ljust(width) if i in (0, 1, 11) else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    rule = "-" * max(map(len, lines))
    lines = [lines[0], rule, *lines[1:-1], rule, lines[-1]]
    device, cuts = planner.assumed["device"], planner.assumed["utilisation"]
    gpus = max(one.gpus for one in stages)
    loading = sum(one.load_hours for one in stages if one.gpu_hours)
    where = f"{device['label']}: {device['tflops']} TFLOP/s, {device['bandwidth_gb']} GB/s"
    shares = ", ".join(f"{key} {value:g}" for key, value in cuts.items())
    lines += [
        "",
        f"Of the GPU hours {_rounded(loading)} load models ({loading / max(hours, 1e-9):.1%}).",
        f"Assumed (config/plan.yaml) where no job has run yet: {where};",
        f"share of the peak: {shares}; 4-bit weights {planner.assumed['nf4_slowdown']:g} times"
        " slower.",
        "Estimates, not promises: expect a factor of two until jobs have been measured.",
    ]
    if gpus == 0:
        lines.append(
            "This configuration asks for no GPU (runtime.gpu: 0): assumed hours hold on the device"
            " above, not on CPU cores."
        )
    for model in planner.config.models:
        mine = [one for one in stages if one.model == model and one.gpus]
        peak = max((one.gpu_gb for one in mine), default=0.0)
        if peak <= device["memory_gb"]:
            continue
        needed = planner.gpus_needed(model)
        more = "" if needed is None else f" set models.{model}.gpus: {needed}, or"
        lines.append(
            f"WARNING: {model}: {peak:.0f} GB do not fit into a GPU of {device['memory_gb']} GB"
            f" ({mine[0].gpus} of them per job);{more} lower runtime.batch_tokens or"
            " statistics.batch_blocks, or quantise (quantization: nf4)."
        )
    asked = planner.config.runtime.mem_mb / 1000
    host = max(one.host_gb for one in stages)
    if host > asked:
        lines.append(
            f"NOTE: a job may need {host:.0f} GB of host memory; runtime.mem_mb asks for"
            f" {asked:.0f} GB at first, doubled at every retry."
        )
    return "\n".join(lines)


def _rounded(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 1 else f"{value:.2f}"
