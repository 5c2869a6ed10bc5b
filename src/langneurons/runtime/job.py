"""The first statement of every script: log, tracebacks, offline environment, threads, seeds."""

import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

from langneurons.base.errors import without_queries
from langneurons.base.io import write_json
from langneurons.runtime.gpus import take
from langneurons.runtime.record import Record

log = logging.getLogger(__name__)
QUIET = (
    *("numba", "matplotlib", "fontTools", "httpx", "httpx2", "httpcore2", "datasets"),
    "ContinuousBatchingLogger",  # of transformers
)
OFFLINE = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}


class Job:
    """A running rule: writes its record when it ends well."""

    def __init__(self, snakemake: Any, record: Record):
        self.snakemake, self.record = snakemake, record

    def done(self, **more: Any) -> None:
        """Write the record beside the log (`logs/...json`)."""
        path = Path(self.snakemake.log[0]).with_suffix(".json")
        write_json(path, self.record.finish(device=device_name(), **more))
        log.info("done in %.1f s", self.record.finish()["seconds"])


def device_name() -> str:
    """Return the accelerators' name and number if torch is loaded and sees any, else 'cpu'."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return "cpu"
    name, count = torch.cuda.get_device_name(0), torch.cuda.device_count()
    return name if count == 1 else f"{count} x {name}"


def start(snakemake: Any, offline: bool = True) -> Job:
    """Set up logging to the rule's log and to stderr, threads, seeds, and return the job."""
    Path(snakemake.log[0]).parent.mkdir(parents=True, exist_ok=True)
    handlers: list[logging.Handler] = [
        logging.FileHandler(snakemake.log[0], mode="w"),
        logging.StreamHandler(),
    ]
    for handler in handlers:
        handler.setFormatter(_Redacting("%(asctime)s %(message)s", "%H:%M:%S"))
    logging.basicConfig(level=logging.INFO, handlers=handlers, force=True)
    for name in QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
    sys.excepthook = _log_traceback
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _terminate)
    take(snakemake.resources.get("gpu", 0) or snakemake.resources.get("gres_gpu", 0))
    if offline:
        os.environ.update(OFFLINE)
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    threads = str(max(1, snakemake.threads))
    for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
        os.environ[variable] = threads
    _tell_numba()
    # Idle threads of numba's pool and of torch's would otherwise spin against each other.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    return Job(snakemake, Record(snakemake.params.get("cfg"), snakemake.params.get("code")))


def _tell_numba() -> None:
    """Have numba take its number of threads now, where it is imported.

    It would take it when it compiles: too late, if a compiled loop from its cache has begun its
    threads by then. Where they run already, their number stays.
    """
    if "numba" not in sys.modules:
        return
    from numba.core import config

    try:
        config.reload_config()
    except RuntimeError:
        os.environ["NUMBA_NUM_THREADS"] = str(vars(config)["NUMBA_NUM_THREADS"])


class _Redacting(logging.Formatter):
    """Lines without the queries of addresses."""

    def format(self, record: logging.LogRecord) -> str:
        """Return a line, or a traceback."""
        return without_queries(super().format(record))


def _log_traceback(
    kind: type[BaseException], value: BaseException, traceback: TracebackType | None
) -> None:
    from langneurons.base.errors import ConfigError, InputError
    from langneurons.base.io import DamagedFile

    user_error = isinstance(value, (ConfigError, DamagedFile, InputError))
    log.error("%s", value, exc_info=None if user_error else (kind, value, traceback))


def _terminate(number: int, _frame: FrameType | None) -> None:
    """End on SIGTERM with an exit code that schedulers count as failure; finished parts stay."""
    raise SystemExit(128 + number)


@contextmanager
def deferred_termination() -> Iterator[Callable[[], bool]]:
    """Hold SIGTERM back in the block; yields a function that returns whether one has come.

    For loops that save their state between units of work. On leaving the block, the signal that
    was held back takes effect.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    received: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _frame: received.append(number))
    try:
        yield lambda: bool(received)
    finally:
        signal.signal(signal.SIGTERM, before)
    if received:
        _terminate(received[0], None)
