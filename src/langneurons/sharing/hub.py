"""Shared folders on the Hugging Face hub, by the calls of `huggingface_hub` alone.

Tokens are found by that library: the login, or HF_TOKEN in the environment. No function here takes
one, so none can stand in a log.
"""

import logging
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from langneurons.base.digests import digest
from langneurons.base.errors import InputError
from langneurons.base.io import write_text
from langneurons.models.hub import endpoint, persist, switched_off
from langneurons.sharing.card import CARD, PICTURE, PLAIN, files_of, read_card
from langneurons.sharing.check import described
from langneurons.sharing.folder import read_folder
from langneurons.sharing.headers import check_model

if TYPE_CHECKING:
    from langneurons.models.language_model import LanguageModel

log = logging.getLogger(__name__)
T = TypeVar("T")
REPO = r"[\w.-]+/[\w.-]+"
TITLE = 59  # characters of a collection's title, at most
KNOWN = 8  # hexadecimal digits that tell titles apart that are cut
SHOWN = 8


def push(folder: Path, repo: str, private: bool = False, collection: bool = False) -> str:
    """Bring a shared folder into a repository, whole and in one commit; return the commit.

    A file of an earlier commit that the folder does not hold is deleted there.

    Raises:
        InputError: The folder is not one, is damaged, or the hub refuses.
    """
    import huggingface_hub

    _check_name(repo)
    described(folder)  # all of it is read: nothing damaged is published
    header, _, paths = read_folder(folder)
    api, what = huggingface_hub.HfApi(), f"model {repo}"
    names = [CARD, *(path.name for path in paths)]
    if (folder / PICTURE).is_file():
        names.append(PICTURE)
    _allowed(what, repo, lambda: api.create_repo(repo, private=private, exist_ok=True))
    done = _allowed(
        what,
        repo,
        lambda: api.upload_folder(
            repo_id=repo,
            folder_path=folder,
            commit_message=f"{header.kind} of {header.model}",
            allow_patterns=names,
            delete_patterns=["*.safetensors", PICTURE, *PLAIN],
        ),
    )
    log.info("%s: %d files at commit %s", repo, len(names), done.oid)
    if collection:
        _collect(api, repo, header.model, private)
    return done.oid


def _collect(api: "object", repo: str, model: str, private: bool) -> None:
    """Add a repository to its owner's collection of a model, found by its title, or made."""
    import huggingface_hub

    assert isinstance(api, huggingface_hub.HfApi)
    owner, title = repo.split("/")[0], f"Language neurons: {model}"
    if len(title) > TITLE:
        title = f"{title[: TITLE - KNOWN - 1]} {digest(model, KNOWN)}"
    what = f"collection {title!r} of {owner}"

    def slug() -> str:
        for one in api.list_collections(owner=owner):
            if one.title == title:
                return one.slug
        made = api.create_collection(title, namespace=owner, private=private, exists_ok=True)
        return made.slug

    place = _allowed(what, repo, slug)
    _allowed(what, repo, lambda: api.add_collection_item(place, repo, "model", exists_ok=True))
    log.info("%s: in collection %s", repo, place)


def _allowed(what: str, repo: str, attempt: Callable[[], T]) -> T:
    """Return what a request that writes returns; tell a token that may not write."""

    def told() -> T:
        try:
            return attempt()
        except Exception as error:
            status = getattr(getattr(error, "response", None), "status_code", None)
            if status == 403:
                raise InputError(
                    f"{what}: the token of HF_TOKEN or of the login may not write there (403)."
                    f" Use a token with write access to {repo.split('/')[0]}, or push to a"
                    " repository of your own."
                ) from error
            if status == 401:
                raise InputError(
                    f"{what}: the hub at {endpoint()} takes no upload without a valid token (401)."
                    " Log in with `hf auth login`, or set HF_TOKEN in the environment."
                ) from error
            raise

    if switched_off():
        raise InputError(
            f"{what}: the hub is switched off (HF_HUB_OFFLINE in the environment); nothing can be"
            " uploaded."
        )
    return persist(what, told)


def pull(
    repo: str,
    revision: str | None = None,
    kind: str | None = None,
    model: "LanguageModel | str | None" = None,
) -> Path:
    """Return a folder, of the library's cache, with the shared folder of a repository.

    The card is fetched first: what is of another kind or model is refused before anything large
    is fetched. Nothing but the card, the tensor files that it lists and the picture is fetched.

    Raises:
        InputError: There is no such repository or revision, it is not open, the hub does not
            answer, or it does not hold a shared folder.
    """
    import huggingface_hub

    _check_name(repo)
    what = f"model {repo}" + (f" at {revision}" if revision else "")
    if switched_off():
        patterns = [CARD, PICTURE, "*.safetensors", *PLAIN]
        return _snapshot(what, repo, revision, patterns, cached=True)
    api = huggingface_hub.HfApi()
    found = persist(what, lambda: api.model_info(repo, revision=revision))
    names = sorted(one.rfilename for one in found.siblings or [])
    if CARD not in names:
        raise InputError(f"{what}: not a shared folder, as it has no {CARD}; {_holds(names)}.")
    card_file = persist(
        what, lambda: huggingface_hub.hf_hub_download(repo, CARD, revision=found.sha)
    )
    try:
        header, card = read_card(card_file, kind)
    except InputError as error:
        words = str(error).replace(str(card_file), CARD)
        raise InputError(f"{what}: {words} The repository: {_holds(names)}.") from None
    check_model(header, model, what)
    wanted = [CARD, PICTURE, *files_of(card)]
    lost = sorted(set(files_of(card)) - set(names))
    if lost:
        raise InputError(f"{what}: its card lists files that it lacks: {', '.join(lost[:SHOWN])}.")
    fetched = _snapshot(what, repo, revision, wanted)
    if fetched.name != found.sha:  # the branch moved meanwhile
        fetched = _snapshot(what, repo, found.sha, wanted)
    return fetched


def _snapshot(
    what: str, repo: str, revision: str | None, patterns: list[str], cached: bool = False
) -> Path:
    """Return the folder of the cache with the files of a commit that fit the patterns."""
    import huggingface_hub

    return Path(
        persist(
            what,
            lambda: huggingface_hub.snapshot_download(
                repo, revision=revision, allow_patterns=patterns, local_files_only=cached
            ),
        )
    )


def pull_to(repo: str, folder: Path, revision: str | None = None) -> Path:
    """Bring the shared folder of a repository into a new folder, and check it.

    Raises:
        InputError: As `pull`; or the folder holds files.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder}: it is there already; name a new folder.")
    cached = pull(repo, revision)
    _, _, paths = read_folder(cached)
    folder.mkdir(parents=True, exist_ok=True)
    for path in paths:
        shutil.copyfile(path, folder / path.name)
    if (cached / PICTURE).is_file():
        shutil.copyfile(cached / PICTURE, folder / PICTURE)
    write_text(folder / CARD, (cached / CARD).read_text(encoding="utf-8"))
    return folder


def _check_name(repo: str) -> None:
    if not re.fullmatch(REPO, repo):
        raise InputError(
            f"{repo!r} is not a repository of the hub, and there is no folder of this name;"
            " expected owner/name."
        )


def _holds(names: list[str]) -> str:
    pickles = [name for name in names if name.endswith((".pth", ".pt", ".bin", ".pkl"))]
    listed = ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")
    text = f"it holds {listed or 'nothing'}"
    if pickles:
        text += (
            f"; {pickles[0]} is a pickle: download it and convert it with `langneurons convert"
            " MASK.pth FOLDER --languages ... --neurons-per-layer ... --model ...`"
        )
    return text
