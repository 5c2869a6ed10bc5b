"""What a run would cost before anything runs: jobs, GPU hours, peak memory and disk per stage.

Estimates follow from stated assumptions (config/plan.yaml): a forward pass takes 2 floating-point
operations per parameter and token, a LoRA step 4 (no gradient of frozen weights), divided by the
device's peak times the share of it that is reached; decoding is bound by reading the weights once
per token. Where jobs of a rule and model have run, the mean of their measured times and the largest
of their measured memory replace the estimate.
"""

import csv
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from langneurons.base.errors import present
from langneurons.config.config import Config
from langneurons.jobs.estimates import GB, Sizes, model_geometry
from langneurons.jobs.stage import Cell, Stage
from langneurons.jobs.stages import STAGES
from langneurons.models.geometry import Geometry

ASSUMPTIONS = "config/plan.yaml"
FILLED = 0.95  # of a GPU's memory; the rest is the driver's and lost between blocks
LOADED = re.compile(r"^\S+ loaded .*, ([\d.]+) s$", re.MULTILINE)


@dataclass(frozen=True)
class Line:
    """A stage of a model in the plan. Memory in GB is the largest of a job, on one of its GPUs.

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
class MethodLine:
    """What a method on trial, or compared by answers, costs in all stages that run for it alone."""

    method: str
    model: str
    protocol: str
    answers: float
    gpu_hours: float


class Planner:
    """The plan of one configuration in one working directory."""

    def __init__(self, config: Config, assumptions: Mapping[str, Any], folder: Path = Path()):
        self.config, self.assumed, self.folder = config, assumptions, folder

    def lines(self) -> list[Line]:
        """Return every stage that computes, by model, in the order of the data flow."""
        found = self._of("")
        for model in self.config.models:
            found += self._of(model)
        return found

    def methods(self) -> list[MethodLine]:
        """Return what each method costs by the assumptions, under each variant of protocols."""
        sums: dict[tuple[str, str, str], list[float]] = {}
        sizes: dict[str, Sizes] = {}
        for stage in STAGES.values():
            cells = [one for one in stage.cells(self.config) if "method" in one]
            if stage.work is None or not cells:
                continue
            for cell in cells:
                loaded = _loaded(cell)
                if loaded not in sizes:
                    gpus = self.config.gpus(loaded)
                    sizes[loaded] = Sizes(self.config, self.assumed, self.folder, loaded, gpus)
                work = stage.work(sizes[loaded], cell)
                key = (cell["method"], cell["model"], cell.get("variant", ""))
                own = sums.setdefault(key, [0.0, 0.0])
                own[0] += work.answers
                own[1] += max(sizes[loaded].gpus, 1) * work.seconds / 3600
        return [MethodLine(*key, *own) for key, own in sums.items()]

    def geometry(self, model: str) -> Geometry:
        """Return a model's size; a ConfigError says that nothing names it."""
        return model_geometry(self.config, self.assumed, self.folder, model)

    def gpus_needed(self, model: str) -> int | None:
        """Return how many GPUs the model's largest job needs, None if a node of 16 is too small."""
        memory = self.assumed["device"]["memory_gb"]
        for gpus in range(1, 17):
            if max(line.gpu_gb for line in self._of(model, gpus)) <= FILLED * memory:
                return gpus
        return None

    def _of(self, model: str, gpus: int | None = None) -> list[Line]:
        """Return the lines of a model, or of what belongs to no model."""
        if gpus is None:
            gpus = self.config.gpus(model) if model else 0
        found = []
        for stage in STAGES.values():
            if stage.work is None:
                continue
            cells = [one for one in stage.cells(self.config) if _loaded(one) == model]
            if cells:
                own = Sizes(self.config, self.assumed, self.folder, model, gpus)
                found.append(self._line(stage, own, cells))
        return found

    def _line(self, stage: Stage, sizes: Sizes, cells: Sequence[Cell]) -> Line:
        unknown = f"stage {stage.rule}: in the cost plan it needs `work` and `need`"
        work, need_of = present(stage.work, unknown), present(stage.need, unknown)
        jobs = {stage.file(cell): work(sizes, cell) for cell in cells}
        gpus = sizes.gpus if stage.loads_model else 0
        need, count = need_of(sizes), max(gpus, 1)
        done = [job for file, job in jobs.items() if (self.folder / file).exists()]
        # A judge's files lie under the model that it judges.
        own_files = f"**/{sizes.model}" if "judge" in cells[0] else f"{sizes.model}/**/*"
        measured, memory = self._measured(stage.rule, own_files) if done else ([], [])
        mean = sum(measured) / len(measured) if measured else None
        assumed = {file: job.seconds for file, job in jobs.items()}
        if mean is not None:
            # Jobs of a rule differ in size: the measured mean belongs to the mean of those done.
            own = [job.seconds for job in done] or [job.seconds for job in jobs.values()]
            scale = mean / max(sum(own) / len(own), 1e-9)
            assumed = {file: seconds * scale for file, seconds in assumed.items()}
        left = sum(
            seconds for file, seconds in assumed.items() if not (self.folder / file).exists()
        )
        load = self._load(stage.rule, own_files, sizes.load) if stage.loads_model else 0.0
        return Line(
            rule=stage.rule,
            model=sizes.model,
            jobs=len(jobs),
            done=len(done),
            million_tokens=sum(job.tokens for job in jobs.values()) / 1e6,
            gpu_hours=count * sum(assumed.values()) / 3600 if need.gpu else 0.0,
            hours_left=count * left / 3600,
            load_hours=count * len(jobs) * load / 3600,
            gpus=gpus,
            gpu_gb=need.gpu if gpus else 0.0,
            host_gb=max(memory, default=need.host + (0 if gpus else need.gpu)),
            disk_gb=sum(job.disk for job in jobs.values()) / GB,
            basis=(f"measured, {len(measured)} jobs" if measured else "assumed")
            + (", at most" if stage.at_most and len(done) < len(jobs) else ""),
        )

    def _load(self, rule: str, files: str, assumed: float) -> float:
        """Return the seconds a job takes to load the model: measured, as logs tell, or assumed."""
        found: list[float] = []
        for path in sorted((self.folder / "logs" / rule).glob(f"{files}.log")):
            found += map(float, LOADED.findall(path.read_text(encoding="utf-8", errors="replace")))
        return sum(found) / len(found) if found else assumed

    def _measured(self, rule: str, files: str) -> tuple[list[float], list[float]]:
        """Return seconds and peak memory in GB of finished jobs (Snakemake's benchmark files)."""
        seconds, memory = [], []
        for path in sorted((self.folder / "benchmarks/results" / rule).glob(f"{files}.tsv")):
            with path.open(encoding="utf-8") as file:
                for row in csv.DictReader(file, delimiter="\t"):
                    seconds.append(float(row["s"]))
                    if row.get("max_rss", "NA") not in ("NA", "-"):
                        memory.append(float(row["max_rss"]) / 1000)
        return seconds, memory


def _loaded(cell: Cell) -> str:
    """Return the model that a job loads: the judge of one that judges; "" of none."""
    return cell.get("judge", cell.get("model", ""))


def text(plan: list[Line], planner: Planner) -> str:
    """Return the plan as a table with totals and the assumptions it rests on."""
    heads = (
        *("stage", "model", "jobs", "done", "M tokens", "GPU h", "h left"),
        *("GPUs", "GPU GB", "host GB", "disk GB", "basis"),
    )
    rows: list[tuple[str, ...]] = [heads]
    for one in plan:
        numbers = (one.million_tokens, one.gpu_hours, one.hours_left)
        row = (one.rule, one.model, str(one.jobs), str(one.done), *map(_rounded, numbers))
        sizes = (one.gpu_gb, one.host_gb, one.disk_gb)
        rows.append((*row, str(one.gpus), *map(_rounded, sizes), one.basis))
    hours = sum(one.gpu_hours for one in plan)
    left = sum(one.hours_left for one in plan if one.gpu_hours)
    jobs, done = sum(one.jobs for one in plan), sum(one.done for one in plan)
    numbers = (sum(one.million_tokens for one in plan), hours, left)
    total = ("total", "", str(jobs), str(done), *map(_rounded, numbers))
    sizes = (
        max(one.gpu_gb for one in plan),
        max(one.host_gb for one in plan),
        sum(one.disk_gb for one in plan),
    )
    rows.append((*total, str(max(one.gpus for one in plan)), *map(_rounded, sizes), ""))
    lines = _columns(rows, (0, 1, 11))
    rule = "-" * max(map(len, lines))
    lines = [lines[0], rule, *lines[1:-1], rule, lines[-1]]
    device, cuts = planner.assumed["device"], planner.assumed["utilisation"]
    gpus = max(one.gpus for one in plan)
    loading = sum(one.load_hours for one in plan if one.gpu_hours)
    where = f"{device['label']}: {device['tflops']} TFLOP/s, {device['bandwidth_gb']} GB/s"
    shares = ", ".join(f"{key} {value:g}" for key, value in cuts.items())
    by_method = planner.methods()
    if by_method:
        head = ("method", "model", "protocol", "answers", "GPU h, assumed")
        shown = [head] + [
            (
                *(one.method, one.model, one.protocol),
                *(f"{one.answers:,.0f}" if one.answers else "none", _rounded(one.gpu_hours)),
            )
            for one in by_method
        ]
        lines += ["", *_columns(shown, (0, 1, 2))]
    lines += [
        "",
        f"Of the GPU hours {_rounded(loading)} load models ({loading / max(hours, 1e-9):.1%}).",
        f"Assumed (config/plan.yaml) where no job has run yet: {where};",
        f"share of the peak: {shares}; 4-bit weights {planner.assumed['nf4_slowdown']:g} times"
        " slower.",
        "Estimates, not promises: expect a factor of two until jobs have been measured.",
    ]
    if any(one.basis.endswith("at most") for one in plan):
        lines.append(
            "At most: the whole text is counted; the stage stops as soon as its result is stable"
            " (statistics.until)."
        )
    if gpus == 0:
        lines.append(
            "This configuration asks for no GPU (runtime.gpu: 0): assumed hours hold on the device"
            " above, not on CPU cores."
        )
    for model in planner.config.models:
        mine = [one for one in plan if one.model == model and one.gpus]
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
    host = max(one.host_gb for one in plan)
    if host > asked:
        lines.append(
            f"NOTE: a job may need {host:.0f} GB of host memory; runtime.mem_mb asks for"
            f" {asked:.0f} GB at first, doubled at every retry."
        )
    return "\n".join(lines)


def _columns(rows: Sequence[tuple[str, ...]], left: Sequence[int]) -> list[str]:
    """Return rows as lines of aligned columns; left: those aligned at the left."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [
            cell.ljust(width) if i in left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return lines


def _rounded(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 1 else f"{value:.2f}"
