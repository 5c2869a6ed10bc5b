"""All figures of a model and protocol, drawn by one job."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from langneurons.base.errors import ConfigError, InputError
from langneurons.base.io import DamagedFile, write_text
from langneurons.reporting.kinds import KINDS, caption
from langneurons.reporting.labels import Labels, quoted

log = logging.getLogger(__name__)


class DrawingFailed(RuntimeError):
    """A figure that could not be drawn; its cause says why."""


def draw_figures(figures: Sequence[Mapping[str, Any]], labels: Labels) -> None:
    """Draw every figure, and write its caption beside it as stem.rst.

    A figure is its kind, cell, stem and result files. One that cannot be drawn does not keep the
    others from it.

    Raises:
        InputError: a result file or the configuration is at fault.
        DrawingFailed: a figure could not be drawn for another reason.
    """
    failed: dict[str, Exception] = {}
    for one in figures:
        try:
            KINDS[one["kind"]].draw(list(one["files"]), dict(one["cell"]), labels, one["stem"])
        except Exception as error:
            log.exception("%s.svg could not be drawn", one["stem"])
            failed[one["stem"]] = error
            continue
        write_caption(one["stem"], caption(one["kind"], dict(one["cell"]), labels, quoted))
    if failed:
        said = "; ".join(f"{stem}.svg: {error}" for stem, error in failed.items())
        text = f"{len(failed)} of {len(figures)} figures could not be drawn: {said}"
        first = next(iter(failed.values()))
        known = isinstance(first, (ConfigError, DamagedFile, InputError))
        raise (InputError if known else DrawingFailed)(text) from first


def write_caption(stem: str, text: str) -> None:
    """Write a caption as Snakemake's report reads it: braces are text, not a template's marks."""
    marked = "".join(f"{{{{ '{one}' }}}}" if one in "{}" else one for one in text)
    write_text(f"{stem}.rst", marked + "\n")
