"""The Hugging Face hub: commits, files and rows, fetched so that a bad connection costs time only.

What is fetched is named by a commit, which is resolved first; data of another commit, such as a
cache holds when the hub does not answer, are refused. Requests that fail for a passing reason
(429, 5xx, a reset, a body cut short) are repeated after the time that the hub asks for. Files of
models continue where they stopped, also in a new process, and are compared with their checksum.
"""

import hashlib
import logging
import os
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from langneurons.base.errors import InputError, present, without_queries
from langneurons.base.io import read_json, write_json
from langneurons.base.settings import NEWEST

log = logging.getLogger(__name__)
T = TypeVar("T")
KEPT = Path("resources/commits")
PASSING = (408, 425, 429, 500, 502, 503, 504)
WAITS = (1, 2, 4, 8, 15, 30, 60, 60, 60)  # seconds between attempts
REFUSED_WAITS = 4  # of them where nothing listens at the address
LONGEST = 900  # seconds that the hub may ask for
PARTS, STAMPS = ".parts", ".fetched.json"
THREADS = 4
CHUNK = 1 << 20
SILENCE = 60.0  # seconds without a byte


def switched_off() -> bool:
    """Return whether the environment lets the libraries read their caches alone."""
    import datasets
    from huggingface_hub import constants

    return constants.is_offline_mode() or datasets.config.HF_HUB_OFFLINE


def endpoint() -> str:
    """Return the address of the hub."""
    from huggingface_hub import constants

    return constants.ENDPOINT


# Attempts -----------------------------------------------------------------------------------------


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    one: BaseException | None = error
    while one is not None and id(one) not in seen:
        seen.add(id(one))
        yield one
        one = one.__cause__ or one.__context__


class NotAnswered(Exception):
    """The hub did not answer, and something else was about to take its place."""


def _passing(error: BaseException) -> float | None:
    """Return the seconds to wait at least before another attempt; None: it would fail again."""
    if switched_off():
        return None
    for one in _chain(error):
        if isinstance(one, InputError):
            return None
        response: Any = getattr(one, "response", None)
        status = getattr(response, "status_code", None)
        if status is not None:
            return _asked(response.headers) if status in PASSING else None
        if isinstance(one, ConnectionError | TimeoutError | NotAnswered) or _named_in(
            one, "TransportError"
        ):
            return 0.0
        if isinstance(one, OSError) and "Consistency check failed" in str(one):
            return 0.0
    return None


def _asked(headers: Mapping[str, str]) -> float:
    """Return the seconds that `Retry-After` asks for: a number, or a date."""
    from email.utils import parsedate_to_datetime

    value = headers.get("Retry-After", "").strip()
    if re.fullmatch(r"\d+(\.\d+)?", value):
        return float(value)
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except (TypeError, ValueError):
        return 0.0


def _named_in(error: BaseException, name: str) -> bool:
    """Return whether an error is of a class of the libraries below, which are not imported here."""
    return any(kind.__name__ == name for kind in type(error).__mro__)


def _is(error: BaseException, name: str) -> bool:
    return any(_named_in(one, name) for one in _chain(error))


@cache
def _own_logs() -> None:
    """Let what the libraries log go the way of every other line, without signed addresses."""
    import datasets  # noqa: F401 - sets up its logger when it is imported
    import huggingface_hub  # noqa: F401

    for name in ("huggingface_hub", "datasets"):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True


def persist(what: str, attempt: Callable[[], T], progress: Callable[[], Any] | None = None) -> T:
    """Return what an attempt returns, repeated while it fails for a passing reason.

    what: the name of what is fetched, for the log and the error. progress: a value that changes
    when an attempt got further, after which the count begins anew.
    """
    _own_logs()
    number, before = 0, progress and progress()
    while True:
        try:
            return attempt()
        except Exception as error:
            asked = _passing(error)
            if asked is None:
                raise _told(what, error) from error
            if progress is not None and (now := progress()) != before:
                number, before = 0, now
            waits = WAITS[:REFUSED_WAITS] if _is(error, "ConnectError") else WAITS
            if number >= len(waits) or asked > LONGEST:
                raise _told(what, error) from error
            wait = max(waits[number], asked)
            number += 1
            log.warning(
                "%s: %s; attempt %d of %d in %.0f s",
                what,
                _reason(error),
                number + 1,
                len(waits) + 1,
                wait,
            )
            time.sleep(wait)


def _reason(error: BaseException) -> str:
    for one in _chain(error):
        response = getattr(one, "response", None)
        if response is not None:
            return f"the hub answers {response.status_code}"
    words = " ".join(str(error).split()) or type(error).__name__
    return without_queries(words)[:200]


def _told(what: str, error: BaseException) -> InputError:
    """Return an error in the user's terms."""
    for one in _chain(error):
        if isinstance(one, InputError):
            return one
    words = without_queries(" ".join(str(one) for one in _chain(error)))
    if _is(error, "GatedRepoError") or "gated dataset" in words:
        return InputError(
            f"{what} asks for consent to its terms: accept them once on its page of the hub, then"
            " set HF_TOKEN in the environment to a token of that account."
        )
    if _is(error, "RevisionNotFoundError") or re.search("Revision .* doesn't exist", words):
        return InputError(
            f"the hub at {endpoint()} has no such commit, or no longer: {what}. Name one that it"
            " has as `revision`."
        )
    if _is(error, "RepositoryNotFoundError") or "doesn't exist on the Hub" in words:
        return InputError(
            f"the hub at {endpoint()} has no {what}, or it is private and HF_TOKEN in the"
            " environment does not open it."
        )
    if switched_off():
        return InputError(
            f"{what} is not in the cache, and the hub is switched off (HF_HUB_OFFLINE or"
            " HF_DATASETS_OFFLINE in the environment). Fetch it where there is a network, without"
            " these."
        )
    for one in _chain(error):
        status = getattr(getattr(one, "response", None), "status_code", None)
        if status == 401:
            return InputError(
                f"{what}: the hub at {endpoint()} does not accept the token of HF_TOKEN or of the"
                " login (401). Set a valid one, or none for what is public."
            )
    if _passing(error) is not None:
        return InputError(
            f"{what}: the hub at {endpoint()} cannot be reached or does not answer"
            f" ({_reason(error)}). Check the network and its proxy; HF_ENDPOINT names"
            " another address, HF_HUB_OFFLINE=1 uses the cache alone, HF_TOKEN raises limits."
            " Then run again: what has been fetched is kept."
        )
    return InputError(f"{what}: {without_queries(' '.join(str(error).split()))}")


# Commits ------------------------------------------------------------------------------------------


def commit_of(kind: str, repo: str, revision: str, kept: Path) -> str:
    """Return the commit of a revision; of `newest`, the one that was newest at the first time.

    kind: model or dataset. kept: a JSON file that keeps it for all later jobs; whichever of
    several jobs writes it first decides for all.
    """
    if revision != NEWEST:
        return revision
    if kept.is_file():
        known = read_json(kept)
        if known["repo"] == repo:
            return known["commit"]
        kept.unlink()
    import huggingface_hub

    api = huggingface_hub.HfApi()
    ask = api.model_info if kind == "model" else api.dataset_info
    what = f"{_named(kind)} {repo}"
    commit = present(persist(what, lambda: ask(repo).sha), f"{what}: the hub names no commit")
    new = kept.with_name(f".{kept.name}.{os.getpid()}.{threading.get_ident()}")
    write_json(new, {"repo": repo, "commit": commit})
    try:
        os.link(new, kept)
        log.info("%s: the newest commit is %s, kept in %s", repo, commit, kept)
    except FileExistsError:
        commit = read_json(kept)["commit"]
    finally:
        new.unlink()
    return commit


def _named(kind: str) -> str:
    return "model" if kind == "model" else "data set"


def kept_commit(repo: str) -> Path:
    """Return the file that keeps the commit of a data set whose newest is asked for."""
    return KEPT / "datasets" / f"{repo.replace('/', '--')}.json"


# Files of models ----------------------------------------------------------------------------------


def download(
    repo: str,
    commit: str,
    groups: Sequence[Sequence[str]],
    directory: Path,
    check: Callable[[], Any] | None = None,
) -> None:
    """Bring files of a model's commit into a folder, whole and compared with their checksums.

    A file that is there already is left alone; half a file of an earlier attempt is continued.
    groups: names of files, one group after the other; `check` is called after each.
    """
    import huggingface_hub

    api, what = huggingface_hub.HfApi(), f"model {repo} at {commit}"
    names = [name for group in groups for name in group]
    found = persist(what, lambda: api.get_paths_info(repo, names, revision=commit))
    listed = [one for one in found if isinstance(one, huggingface_hub.RepoFile)]
    parts = directory / PARTS
    parts.mkdir(parents=True, exist_ok=True)
    stamps = _stamps(directory)
    wanted = {}
    for entry in listed:
        checksum = entry.lfs.sha256 if entry.lfs is not None else entry.blob_id
        there = directory / entry.path
        known = stamps.get(entry.path) == checksum
        if not (known and there.is_file() and there.stat().st_size == entry.size):
            wanted[entry.path] = (entry.size, checksum)
    for lost in sorted(set(names) - {entry.path for entry in listed}):
        raise InputError(f"{what} has no file {lost}.")
    # Files of equal content are fetched side by side, each into a part of its own.
    keep = {f"{checksum}.{name}.part" for name, (_, checksum) in wanted.items()}
    for old in parts.iterdir():
        if old.name not in keep:
            old.unlink()
    lock = threading.Lock()

    def fetch(name: str) -> None:
        size, checksum = wanted[name]
        part = parts / f"{checksum}.{name}.part"
        url = huggingface_hub.hf_hub_url(repo, name, revision=commit)
        start = time.monotonic()
        persist(
            f"{what}, {name}",
            lambda: _fetch(url, part, size, checksum, f"{what}, {name}"),
            lambda: part.stat().st_size if part.is_file() else 0,
        )
        os.chmod(part, 0o666 & ~_umask())
        os.replace(part, directory / name)
        with lock:
            write_json(directory / STAMPS, _stamps(directory) | {name: checksum})
        if size > 1e8:
            seconds = max(time.monotonic() - start, 1e-3)
            log.info("%s: %.2f GB, %.0f MB/s", name, size / 1e9, size / 1e6 / seconds)

    for group in groups:
        with ThreadPoolExecutor(THREADS) as pool:
            tasks = [pool.submit(fetch, name) for name in group if name in wanted]
            try:
                for task in tasks:
                    task.result()
            except BaseException:
                for task in tasks:
                    task.cancel()
                raise
        if check is not None:
            check()
    parts.rmdir()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _stamps(directory: Path) -> dict[str, str]:
    path = directory / STAMPS
    return read_json(path) if path.is_file() else {}


def _fetch(url: str, part: Path, size: int, checksum: str, what: str) -> None:
    """Read what is missing of a file, and compare the whole."""
    from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status

    done = part.stat().st_size if part.is_file() else 0
    if done > size:
        part.unlink()
        done = 0
    if done < size or size == 0:
        headers = build_hf_headers() | {"Accept-Encoding": "identity"}
        if done:
            headers["Range"] = f"bytes={done}-"
        request = get_session().stream(
            "GET", url, headers=headers, follow_redirects=True, timeout=SILENCE
        )
        with request as response:
            if response.status_code >= 400:
                response.read()
            hf_raise_for_status(response)
            mode = "ab" if done and response.status_code == 206 else "wb"
            with part.open(mode) as written:
                for chunk in response.iter_bytes(CHUNK):
                    written.write(chunk)
                written.flush()
                os.fsync(written.fileno())
    found = part.stat().st_size
    if found < size:
        raise NotAnswered(f"{found} of {size} bytes came")
    if _checksum(part, len(checksum), found) != checksum:
        part.unlink()
        raise NotAnswered(f"{what}: the checksum is not {checksum}; it is fetched anew")


def _checksum(path: Path, length: int, size: int) -> str:
    """Return the SHA-256 of a large file, or git's SHA-1 of a small one, by its length."""
    made = hashlib.sha256() if length == 64 else hashlib.sha1(f"blob {size}\0".encode())
    with path.open("rb") as opened:
        while block := opened.read(1 << 22):
            made.update(block)
    return made.hexdigest()
