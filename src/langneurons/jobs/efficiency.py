"""What jobs used of what they asked for, rule by rule, from Snakemake's benchmark files.

Time and memory are set against the first attempt's request (`runtime.runtime_minutes`,
`runtime.mem_mb`); the last column says what to ask for instead, with half as much again in reserve.

Where SLURM keeps accounts (sacct), a second table tells how its jobs ended, failed attempts among
them, and what they used of what each had asked for. It needs AccountingStoreFlags=job_comment.
"""

import csv
import math
import re
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from langneurons.config import Config
from langneurons.jobs.stages import STAGES

FOLDER = "benchmarks/results"
RESERVE = 1.5
SPARE = 0.5  # asking for more than twice of what is used is worth a word


@dataclass
class Used:
    """Seconds, peak memory in MB and mean CPU load in per cent of a rule's jobs."""

    rule: str
    seconds: list[float] = field(default_factory=list)
    memory: list[float] = field(default_factory=list)
    load: list[float] = field(default_factory=list)


def used(folder: Path) -> list[Used]:
    """Return what the jobs of every rule used; rules with the most hours first."""
    found = []
    for place in sorted(path for path in folder.glob("*") if path.is_dir()):
        one = Used(place.name)
        for path in sorted(place.rglob("*.tsv")):
            with path.open(encoding="utf-8") as file:
                for row in csv.DictReader(file, delimiter="\t"):
                    one.seconds.append(float(row["s"]))
                    for key, values in (("max_rss", one.memory), ("mean_load", one.load)):
                        if row.get(key, "NA") not in ("NA", "-", ""):
                            values.append(float(row[key]))
        if one.seconds:
            found.append(one)
    return sorted(found, key=lambda one: -sum(one.seconds))


def table(rules: Sequence[Used], config: Config) -> str:
    """Return the report."""
    heads = ("rule", "jobs", "hours", "longest, min", "of asked", "peak, GB", "of asked", "cores")
    rows = [(*heads, "advice")]
    for one in rules:
        longest, peak = max(one.seconds) / 60, max(one.memory, default=math.nan) / 1000
        time = memory = advice = ""
        if one.rule in STAGES and STAGES[one.rule].loads_model:
            asked_time, asked_memory = config.runtime.runtime_minutes, config.runtime.mem_mb / 1000
            time, memory = f"{longest / asked_time:.0%}", f"{peak / asked_memory:.0%}"
            advice = _advice(longest, asked_time, peak, asked_memory)
        load = sum(one.load) / len(one.load) / 100 if one.load else math.nan
        numbers = (f"{sum(one.seconds) / 3600:.2f}", f"{longest:.1f}", time, f"{peak:.2f}", memory)
        rows.append((one.rule, str(len(one.seconds)), *numbers, f"{load:.1f}", advice))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        "  ".join(
            cell.ljust(width) if i in (0, 8) else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    return "\n".join([lines[0], "-" * max(map(len, lines)), *lines[1:]])


def _advice(longest: float, asked_time: float, peak: float, asked_memory: float) -> str:
    words = []
    if longest > asked_time:
        words.append(f"runtime_minutes: {math.ceil(RESERVE * longest)}")
    if (
        not math.isnan(peak)
        and not SPARE * asked_memory <= RESERVE * peak <= asked_memory * RESERVE
    ):
        words.append(f"mem_mb: {math.ceil(RESERVE * peak * 1000 / 500) * 500}")
    return ", ".join(words)


SACCT = (
    *("JobIDRaw", "State", "ElapsedRaw", "TimelimitRaw", "ReqMem"),
    *("MaxRSS", "WorkDir", "Comment"),
)
UNITS = {"": 2.0**-20, "K": 2.0**-10, "M": 1.0, "G": 2.0**10, "T": 2.0**20}


@dataclass
class Accounted:
    """What SLURM says of a rule's jobs: ends by state, seconds, shares of time and memory asked."""

    rule: str
    states: Counter = field(default_factory=Counter)
    seconds: float = 0.0
    time: list[float] = field(default_factory=list)
    memory: list[float] = field(default_factory=list)


def megabytes(text: str) -> float | None:
    """Return MB of sacct's sizes, such as 1.5G, 4000M (older versions: 4000Mn), 123456K."""
    match = re.fullmatch(r"([\d.]+)([KMGT]?)[nc]?", text.strip())
    return None if match is None else float(match.group(1)) * UNITS[match.group(2)]


def accounted(text: str, directory: Path) -> list[Accounted]:
    """Read what `sacct --parsable2` prints of SACCT: a line per job and one per step."""
    jobs: dict[str, dict[str, str]] = {}
    peaks: dict[str, float] = {}
    for line in text.splitlines():
        one = dict(zip(SACCT, line.split("|", len(SACCT) - 1), strict=False))
        number, _, step = one["JobIDRaw"].partition(".")
        if step:
            peaks[number] = max(peaks.get(number, 0.0), megabytes(one["MaxRSS"]) or 0.0)
        elif one["WorkDir"] == str(directory):
            jobs[number] = one
    rules: dict[str, Accounted] = {}
    for number, one in jobs.items():
        match = re.match(r"rule_(.+?)_wildcards", one["Comment"])
        rule = match.group(1) if match else "unnamed"
        kept = rules.setdefault(rule, Accounted(rule))
        kept.states[one["State"].split()[0]] += 1
        kept.seconds += float(one["ElapsedRaw"])
        if (one["TimelimitRaw"] or "0").isdigit() and int(one["TimelimitRaw"] or 0):
            kept.time.append(float(one["ElapsedRaw"]) / 60 / int(one["TimelimitRaw"]))
        asked = megabytes(one["ReqMem"])
        if asked and peaks.get(number):
            kept.memory.append(peaks[number] / asked)
    return sorted(rules.values(), key=lambda one: -one.seconds)


def accounts(directory: Path, days: int = 30) -> list[Accounted]:
    """Ask sacct for the last days' jobs of a working directory; nothing where it does not work."""
    if shutil.which("sacct") is None:
        return []
    since = time.strftime("%Y-%m-%d", time.localtime(time.time() - days * 86400))
    command = ["sacct", "--parsable2", "--noheader", "-S", since, "-o", ",".join(SACCT)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    return [] if done.returncode else accounted(done.stdout, directory.resolve())


def accounts_table(rules: Sequence[Accounted]) -> str:
    """Return the report of what SLURM says."""
    heads = ("rule", "ends", "hours", "most time of asked", "most memory of asked")
    rows: list[tuple[str, ...]] = [heads]
    for one in rules:
        ends = ", ".join(f"{count} {state}" for state, count in one.states.most_common())
        shares = (f"{max(s):.0%}" if s else "" for s in (one.time, one.memory))
        rows.append((one.rule, ends, f"{one.seconds / 3600:.2f}", *shares))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def report(config: Config, folder: Path, named: Sequence[str]) -> str:
    """Return the report of a run in a folder.

    named: the configuration files, which the error names.

    Raises:
        FileNotFoundError: no job has finished there.
    """
    rules = used(folder / FOLDER)
    if not rules:
        raise FileNotFoundError(
            f"No job has finished here: {folder / FOLDER} holds no measured times."
            f" Run `snakemake --configfile {' '.join(named)} -c 2` first (or name the folder of a"
            " run with --directory). What a run would cost: `langneurons plan`."
        )
    text, jobs = table(rules, config), accounts(folder)
    return f"{text}\n\nWhat SLURM says of its jobs:\n{accounts_table(jobs)}" if jobs else text
