"""The Hugging Face hub: commits, files and rows, fetched so that a bad connection costs time only.

What is fetched is named by a commit, which is resolved first; data of another commit, such as a
cache holds when the hub does not answer, are refused. Requests that fail for a passing reason
(429, 5xx, a reset, a body cut short) are repeated after the time that the hub asks for. Files of
models continue where they stopped, also in a new process, and are compared with their checksum.
"""

import hashlib
import logging
import os
import random
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from langneurons.base.errors import InputError, nearest, without_queries
from langneurons.base.io import read_json, write_json
from langneurons.base.settings import NEWEST
from langneurons.data.reading import Row, Rows, aligned, class_names, filled, unknown_field

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
BATCH, BLOCK = 100, 1 << 21  # rows that are decoded at once, bytes that are asked for at once
SILENCE = 60.0  # seconds without a byte


def switched_off() -> bool:
    """Tell whether the environment lets the libraries read their caches alone."""
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
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


class _NotAnswered(Exception):
    """The hub did not answer, and something else was about to take its place."""


def _passing(error: BaseException) -> float | None:
    """Return the seconds to wait at least before another attempt; None: it would fail again."""
    if switched_off():
        return None
    for one in _chain(error):
        if isinstance(one, InputError):
            return None
        status = getattr(getattr(one, "response", None), "status_code", None)
        if status is not None:
            return _asked(one.response.headers) if status in PASSING else None
        if isinstance(one, ConnectionError | TimeoutError | _NotAnswered) or _named_in(
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
    """Tell whether an error is of a class of the libraries below, which are not imported here."""
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
    commit = persist(f"{_named(kind)} {repo}", lambda: ask(repo).sha)
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
    listed = persist(what, lambda: api.get_paths_info(repo, names, revision=commit))
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
        raise _NotAnswered(f"{found} of {size} bytes came")
    if _checksum(part, len(checksum), found) != checksum:
        part.unlink()
        raise _NotAnswered(f"{what}: the checksum is not {checksum}; it is fetched anew")


def _checksum(path: Path, length: int, size: int) -> str:
    """Return the SHA-256 of a large file, or git's SHA-1 of a small one, by its length."""
    made = hashlib.sha256() if length == 64 else hashlib.sha1(f"blob {size}\0".encode())
    with path.open("rb") as opened:
        while block := opened.read(1 << 22):
            made.update(block)
    return made.hexdigest()


# Rows of data sets --------------------------------------------------------------------------------


def read(
    source: Mapping[str, Any],
    key: str,
    lang: str,
    code: str,
    fields: Iterable[str] | None = None,
    needed: Iterable[str] = (),
) -> Rows:
    """Return the rows of a data set, streamed; see `langneurons.data.reading.read`.

    source: dataset, config, split, revision, and of a shuffle seed, buffer and shards. `columns`
    (field -> config and field of the data set) takes fields from several configurations.
    """
    repo, split = source["dataset"], source["split"]
    commit = commit_of("dataset", repo, source["revision"], kept_commit(repo))
    origin = {"kind": "hub", "dataset": repo, "commit": commit, "split": split}
    if source["revision"] == NEWEST:
        origin["asked"] = NEWEST
    if columns := source.get("columns"):
        found, names, classes = {}, {}, {}
        for field, column in columns.items():
            own, template = column["field"], column["config"]
            name = filled(template, f"{key}.columns.{field}.config", lang, code)
            taken = list(_rows(repo, name, split, commit, [own], [own]))
            found[field], names[field] = [row[own] for row in taken], name
            if taken and own in taken[0].names:
                classes[field] = taken[0].names[own]
        where = f"{repo} ({', '.join(names.values())}, {split})"
        rows = aligned(found, lambda number: f"{where}, row {number}", where, classes)
        return Rows(rows, origin | {"config": sorted(set(names.values()))})
    template = source.get("config")
    name = template and filled(template, f"{key}.config", lang, code)
    origin["config"] = name
    shuffle = None
    if source.get("seed") is not None:
        origin["shuffle"] = shuffle = {key: source[key] for key in ("seed", "buffer", "shards")}
    wanted = None if fields is None else sorted(fields)
    return Rows(_rows(repo, name, split, commit, wanted, sorted(needed), shuffle), origin)


def _rows(
    repo: str,
    config: str | None,
    split: str,
    commit: str,
    fields: Sequence[str] | None = None,
    needed: Sequence[str] = (),
    shuffle: Mapping[str, int] | None = None,
) -> Iterator[Row]:
    """Return the rows of a commit of a data set, in its order or shuffled."""
    where = f"{repo} ({config or 'default'}, {split})"
    what = f"data set {where} at {commit}"
    if not switched_off():
        _resolve(repo, commit, what)
    files, names = persist(what, lambda: _files(repo, config, split, commit, fields, needed, what))
    parts = [(f"{where}, row", _Chained(files))]
    if shuffle is not None:
        parts = [(f"{where}, file {number}, row", one) for number, one in enumerate(files, 1)]

    def rows_of(part: tuple[str, Any]) -> Iterator[Row]:
        name, own = part
        for number, row in enumerate(_lasting(own, what), 1):
            place = f"{name} {number}"
            for field in needed:
                if field not in row:
                    raise unknown_field(row, field, place)
            if fields is not None:
                row = {field: row[field] for field in fields if field in row}
            yield Row(row, place, names)

    if shuffle is None:
        return rows_of(parts[0])
    return _shuffled([lambda part=part: rows_of(part) for part in parts], **shuffle)


def _lasting(stream: Iterable[T], what: str) -> Iterator[T]:
    """Yield what a stream yields; after a break it goes on behind what has come."""
    count, rows = 0, None

    def following():
        nonlocal rows
        if rows is None:
            rows = iter(stream)
            for _ in range(count):
                next(rows, None)
        try:
            return next(rows, None)
        except Exception:
            rows = None
            raise

    while (row := persist(what, following)) is not None:
        count += 1
        yield row


def _shuffled(
    parts: Sequence[Callable[[], Iterator[T]]], seed: int, buffer: int, shards: int
) -> Iterator[T]:
    """Yield rows of several files in a random order, each of them held once.

    `shards` of the files are read in turns, in a random order of the files. Of the `buffer` rows at
    hand a random one is yielded, and the next one read takes its place. The shuffle of the library
    holds its buffer several times, and its order is that of a version.
    """
    draw = random.Random(seed).random
    waiting = sorted(range(len(parts)), key=lambda _: draw())
    active: list[Iterator[T]] = []
    held: list[T] = []
    turn = 0
    while waiting or active:
        while waiting and len(active) < shards:
            active.append(parts[waiting.pop(0)]())
        turn %= len(active)
        row = next(active[turn], None)
        if row is None:
            active.pop(turn)
            continue
        turn += 1
        if len(held) < buffer:
            held.append(row)
            continue
        place = int(draw() * buffer)
        row, held[place] = held[place], row
        yield row
    while held:
        place = int(draw() * len(held))
        held[place], held[-1] = held[-1], held[place]
        yield held.pop()


def _resolve(repo: str, commit: str, what: str) -> None:
    """Ask the hub for a commit before anything is read, which a cache could answer as well."""
    import huggingface_hub

    api = huggingface_hub.HfApi()
    found = persist(what, lambda: api.dataset_info(repo, revision=commit)).sha
    if found != commit:
        raise InputError(f"{what}: the hub answers with commit {found}, which is not used.")


class _Chained:
    """The rows of several files, one after the other, as often as they are asked for."""

    def __init__(self, files: Sequence[Iterable[T]]):
        self._files = files

    def __iter__(self) -> Iterator[T]:
        for one in self._files:
            yield from one


class _Parquet:
    """Some columns of a parquet file of the hub, as often as they are asked for.

    It is read a page at a time: the library's reader holds row groups, tens of MB for each file.
    """

    def __init__(self, url: str, columns: Sequence[str]):
        self._url, self._columns = url, list(columns)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        import pyarrow.parquet as pq
        from huggingface_hub import HfFileSystem

        with HfFileSystem().open(self._url, "rb", block_size=BLOCK) as opened:
            file = pq.ParquetFile(opened, buffer_size=BLOCK, pre_buffer=False)
            given = {"batch_size": BATCH, "columns": self._columns, "use_threads": False}
            for batch in file.iter_batches(**given):
                yield from batch.to_pylist()


def _files(repo, config, split, commit, fields, needed, what):
    """Return the rows of each file of a split, of the commit and no other, and class names."""
    import datasets

    # An iterable data set would load torch for its data loader, which nobody asks for here.
    datasets.config.TORCH_AVAILABLE = False
    builder = _builder(repo, config, commit, what)
    try:
        stream = builder.as_streaming_dataset(split)
    except ValueError as error:
        if "Bad split" not in str(error):
            raise
        legal = re.findall(r"'([^']+)'", str(error).partition("Available splits")[2])
        raise InputError(
            f"{what}: no split {split!r}; splits: {', '.join(legal)}.{nearest(split, legal)} A part"
            " of a split is named with `rows` or `limit`."
        ) from None
    names, known = class_names(stream.features), stream.column_names
    for field in needed if known is not None else ():
        if field not in known:
            raise unknown_field(dict.fromkeys(known), field, what)
    chosen = [field for field in known or () if field in set(fields or ())]
    urls = (builder.config.data_files or {}).get(split, ())
    if chosen and type(builder).__name__.startswith("Parquet") and urls:
        return [_Parquet(url, chosen) for url in urls], names
    number = stream.num_shards
    return [stream.shard(number, index) for index in range(number)], names


def _builder(repo, config, commit, what):
    import datasets

    if Path(repo).exists():
        raise InputError(
            f"{what}: a folder {repo} lies here, which would be read in place of the hub. Run in"
            " another folder, or rename it."
        )
    try:
        builder = datasets.load_dataset_builder(repo, config, revision=commit)
    except ValueError as error:
        if "not found. Available" not in str(error):
            raise
        legal = re.findall(r"'([^']+)'", str(error).partition("Available")[2])
        raise InputError(
            f"{what}: no configuration {config!r}; configurations: {', '.join(legal[:40])}."
            f"{nearest(config, legal)}"
        ) from None
    if builder.hash == commit:
        return builder
    other = f"the cache holds commit {builder.hash} in place of {commit}, which is not used"
    if switched_off():
        raise InputError(f"{what}: the hub is switched off, and {other}.")
    raise _NotAnswered(f"no answer, and {other}")
