"""GPUs of a workstation, one job each; on a cluster SLURM has already chosen.

Jobs that run side by side outside SLURM would all take the first GPU. Each claims free ones with a
file lock that ends with the process, however it ends, and sees only those.
"""

import fcntl
import logging
import os
import re
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

log = logging.getLogger(__name__)
VISIBLE = "CUDA_VISIBLE_DEVICES"
_held: list[IO] = []


def present(environment: Mapping[str, str], devices: Path = Path("/dev")) -> list[str]:
    """Return the GPUs that may be used: those that CUDA_VISIBLE_DEVICES names, or all."""
    if VISIBLE in environment:
        return [name for name in environment[VISIBLE].split(",") if name.strip()]
    found = (re.fullmatch(r"nvidia(\d+)", path.name) for path in devices.glob("nvidia*"))
    return sorted((match.group(1) for match in found if match), key=int)


def claim(number: int, gpus: Sequence[str], folder: Path, wait: float = 5.0) -> list[str]:
    """Lock `number` of the GPUs for the life of this process and return them; waits for free ones.

    A job that asks for more than there are gets all.
    """
    folder.mkdir(parents=True, exist_ok=True)
    number = min(number, len(gpus))
    claimed: list[str] = []
    said = False
    while len(claimed) < number:
        for gpu in gpus:
            if gpu in claimed or len(claimed) == number:
                continue
            handle = (folder / re.sub(r"\W", "_", gpu)).open("w")
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                handle.close()
                continue
            _held.append(handle)
            claimed.append(gpu)
        if len(claimed) < number:
            if not said:
                log.info("waiting for a free GPU of %s", ", ".join(gpus))
            said = True
            time.sleep(wait)
    return claimed


def take(number: int) -> None:
    """Let this process see GPUs of its own, outside SLURM; call before CUDA is first used."""
    gpus = present(os.environ)
    if number < 1 or len(gpus) < 2 or "SLURM_JOB_ID" in os.environ:
        return
    folder = Path(tempfile.gettempdir(), f"langneurons-gpus-{os.getuid()}")
    os.environ[VISIBLE] = ",".join(claim(number, gpus, folder))
    log.info("on GPU %s", os.environ[VISIBLE])
