"""What neurons, statistics and directions have in common: a folder, and a repository of the hub."""

import logging
import os
import tempfile
from abc import ABC, abstractmethod
from importlib.util import find_spec
from pathlib import Path
from typing import ClassVar, Self

from langneurons.api.models import EMBEDDED
from langneurons.base.errors import InputError
from langneurons.models.language_model import LanguageModel
from langneurons.sharing import hub
from langneurons.sharing.card import PICTURE, how_to_load
from langneurons.sharing.folder import read_folder, write_folder
from langneurons.sharing.headers import Origin, check_model

log = logging.getLogger(__name__)


class Shared(ABC):
    """What is kept in a folder of docs/format.md, and on the hub."""

    KIND: ClassVar[str]

    def save(self, folder: str | os.PathLike[str], license: str | None = None) -> None:
        """Write a folder that others can read: tensors, a card, a picture (docs/format.md).

        An earlier folder of this kind is replaced. Equal content gives equal files.

        Args:
            folder: A new folder, or one that `save` wrote.
            license: Licence for the card, as the hub names it, such as `cc-by-4.0`.

        Raises:
            ValueError: The folder holds other files, or what is saved does not name its model.
        """
        self._save(folder, license)

    def push_to_hub(
        self,
        repo: str,
        *,
        license: str | None = None,
        private: bool = False,
        collection: bool = False,
    ) -> str:
        """Bring this into a repository of the hub, which is made if need be; return the commit.

        The token is that of the login or of HF_TOKEN in the environment.

        Args:
            repo: The repository, `owner/name`.
            license: Licence for the card, as the hub names it, such as `cc-by-4.0`.
            private: Whether a new repository is private.
            collection: Whether it is added to the owner's collection of the model, which is made
                if need be.

        Raises:
            ValueError: The hub cannot be reached or refuses; the error says why.
        """
        with tempfile.TemporaryDirectory() as folder:
            self._save(Path(folder, "shared"), license, repo)
            return hub.push(Path(folder, "shared"), repo, private, collection)

    @classmethod
    def from_pretrained(
        cls,
        repo_or_folder: str | os.PathLike[str],
        *,
        revision: str | None = None,
        model: LanguageModel | str | None = None,
    ) -> Self:
        """Read what `push_to_hub` or `save` wrote, from a repository of the hub or a folder.

        Args:
            repo_or_folder: A repository, `owner/name`, or a folder. A folder of this name goes
                before a repository.
            revision: Commit, branch or tag of the repository; left out: the newest commit.
            model: What it must have been made from: a loaded model, of which name, revision,
                tokenizer and sizes are compared; or a repository or name.

        Raises:
            ValueError: There is nothing of this kind, it is damaged, of another model, or the hub
                cannot be reached or refuses.
        """
        folder = Path(repo_or_folder).expanduser()
        if folder.is_dir():
            if revision is not None:
                raise InputError(
                    f"{folder}: a folder has no revision; leave it out, or name a repository."
                )
            return cls._loaded(folder, model)
        return cls._loaded(hub.pull(str(repo_or_folder), revision, cls.KIND, model), model)

    @classmethod
    def _loaded(cls, folder: Path, model: LanguageModel | str | None = None) -> Self:
        header, _, paths = read_folder(folder, cls.KIND)
        check_model(header, model, str(folder))
        return cls._read(paths, header)

    def _save(
        self, folder: str | os.PathLike[str], license: str | None, place: str | None = None
    ) -> None:
        header = self._header()
        packages = {source.package: name for name, source in EMBEDDED.items()}
        end = how_to_load(header, packages.get(header.model, header.model), place)
        write_folder(
            folder,
            header,
            self._write,
            lambda made: self._pictured(made, header),
            lambda drawn: [*self._body(header, drawn), *end],
            license,
        )

    def _pictured(self, folder: Path, header: Origin) -> bool:
        if find_spec("matplotlib") is None:
            log.warning("no picture %s: matplotlib is not installed", PICTURE)
            return False
        title = f"{self.KIND.capitalize()}: {header.model}"
        with tempfile.TemporaryDirectory() as drawn:
            self._draw(Path(drawn, "layers"), title)
            (folder / PICTURE).write_bytes(Path(drawn, "layers.svg").read_bytes())
        return True

    @abstractmethod
    def _header(self) -> Origin: ...

    @abstractmethod
    def _write(self, folder: Path) -> list[str]: ...

    @abstractmethod
    def _draw(self, stem: Path, title: str) -> None: ...

    @abstractmethod
    def _body(self, header: Origin, drawn: bool) -> list[str]: ...

    @classmethod
    @abstractmethod
    def _read(cls, paths: list[Path], header: Origin) -> Self: ...
