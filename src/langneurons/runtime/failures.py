"""What the end of a failed run says: per failed job its reason, its logs, and the next command."""

import logging
import re
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

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


class Watch(logging.Handler):
    """A handler of Snakemake's logger that keeps the jobs that failed and did not finish later.

    It reads the events themselves, so that `--quiet` and the form of messages do not matter.
    """

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self._failed: dict[int, Failure] = {}

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a failed job; drop one that has finished after all."""
        said = vars(record)  # the events' fields are attributes that `LogRecord` does not declare
        event = getattr(said.get("event"), "value", None)
        if event == "job_finished":
            self._failed.pop(said["job_id"], None)
        elif event == "job_error":
            message = said.get("rule_msg")
            self._failed[said["jobid"]] = Failure(
                said["rule_name"],
                next(iter(map(str, said["output"])), ""),
                tuple(str(path).split(" (check log")[0] for path in said["log"]),
                str(message) if message else None,
            )

    @property
    def failures(self) -> list[Failure]:
        """The jobs that failed, in the order in which they did first."""
        return list(self._failed.values())


def watch(logger: logging.Logger) -> Watch:
    """Watch a logger, once."""
    for handler in logger.handlers:
        if isinstance(handler, Watch):
            return handler
    found = Watch()
    logger.addHandler(found)
    return found


def describe(
    failures: Sequence[Failure], arguments: Sequence[str], logs: Iterable[str] = ()
) -> str:
    """Return the closing words of a failed run.

    arguments: the command's, without the program; logs: Snakemake's own log files.
    """
    command = shlex.join(["snakemake", *arguments])
    if not failures:
        lines = ["langneurons: the run ended early, and no job had failed; finished jobs are kept."]
        lines += [f"  log: {path}" for path in logs]
    else:
        lines = [
            f"langneurons: {len(failures)} job(s) failed; everything that has finished is kept."
        ]
    for one in failures[:SHOWN]:
        lines += ["", f"  {one.rule} -> {one.output}", f"    reason: {one.reason}"]
        if one.message:
            lines.append(f"    SLURM or Snakemake: {one.message[:WIDTH]}")
        lines += [f"    log: {path}" for path in one.logs]
    if len(failures) > SHOWN:
        lines.append(f"  ... and {len(failures) - SHOWN} more")
    lines += [
        "",
        "Known reasons and cures: docs/troubleshooting.md. Then run again:",
        f"  {command}",
    ]
    return "\n".join(lines)
