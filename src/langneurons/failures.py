"""What the end of a failed run says: per failed job its reason, its logs, and the next command."""

import re
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

ERROR = re.compile(r"^Error in rule (\w+):\n((?:[ \t]+.*\n?)+)", re.MULTILINE)
FINISHED = re.compile(r"^Finished jobid: (\d+)", re.MULTILINE)
TIME = re.compile(r"^\d\d:\d\d:\d\d ")
SHOWN = 10
WIDTH = 300


@dataclass(frozen=True)
class Failure:
    """A job that did not finish: rule, first output, logs, and what its executor says of it."""

    rule: str
    output: str
    logs: tuple[str, ...]
    message: str | None

    @property
    def reason(self) -> str:
        """The last line of the job's own log; where there is none, what its executor says."""
        for path in map(Path, self.logs):
            if path.is_file():
                lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
                last = next((line for line in reversed(lines) if line.strip()), None)
                if last is not None:
                    return TIME.sub("", last).strip()[:WIDTH]
        return self.message or "no log was written: killed, or never started"


def failures(text: str) -> list[Failure]:
    """Return the jobs that failed in Snakemake's log and did not finish later, in order."""
    failed: dict[str, Failure] = {}
    events = [(match.start(), match) for match in (*ERROR.finditer(text), *FINISHED.finditer(text))]
    for _, match in sorted(events, key=lambda event: event[0]):
        if match.re is FINISHED:
            failed.pop(match.group(1), None)
            continue
        fields = dict(re.findall(r"^[ \t]+(\w+): (.*)$", match.group(2), re.MULTILINE))
        logs = fields.get("log", "").split(" (check log")[0]
        message = fields.get("message")
        failed[fields.get("jobid", "")] = Failure(
            match.group(1),
            fields.get("output", "").split(", ")[0],
            tuple(path for path in logs.split(", ") if path),
            None if message in (None, "None") else message,
        )
    return list(failed.values())


def describe(logs: Iterable[str], arguments: Sequence[str]) -> str:
    """Return the closing words of a failed run.

    logs: Snakemake's own log files; arguments: the command's, without the program.
    """
    found = []
    for path in map(Path, logs):
        if path.is_file():
            found += failures(path.read_text(encoding="utf-8", errors="replace"))
    lines = [f"langneurons: {len(found)} job(s) failed; everything that has finished is kept."]
    for one in found[:SHOWN]:
        lines += ["", f"  {one.rule} -> {one.output}", f"    reason: {one.reason}"]
        if one.message:
            lines.append(f"    SLURM or Snakemake: {one.message[:WIDTH]}")
        lines += [f"    log: {path}" for path in one.logs]
    if len(found) > SHOWN:
        lines.append(f"  ... and {len(found) - SHOWN} more")
    command = shlex.join(["snakemake", *arguments])
    lines += [
        "",
        "Known reasons and cures: docs/troubleshooting.md. Then run again:",
        f"  {command}",
    ]
    return "\n".join(lines)
