"""Where the files of a run lie: patterns, with the names of a file's cell in braces.

The names of a cell are keys of the configuration. `variant` is the choice of protocol points that a
stage depends on, `langset` the folder of a language set.
"""

import os
import re
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path

LAYOUTS = {
    "corpora": "results/{model}/corpora/{lang}.safetensors",
    "activations": "results/{model}/activations/{lang}.safetensors",
    "slices": "results/{model}/slices/{lang}/{slice}.safetensors",
    "until": "results/{model}/until.parquet",
    "neurons": "results/{model}/neurons/{langset}/{selection}.parquet",
    "stability": "results/{model}/stability/{langset}/{selection}.parquet",
    "perplexity": "results/{model}/perplexity/{variant}/{langset}/{selection}.parquet",
    "trials": "results/{model}/trials/{langset}/{method}.parquet",
    "answers": "results/{model}/answers/{variant}/{langset}/{method}/{phase}.scored.parquet",
    "ratings": "results/{model}/answers/{variant}/{langset}/{method}/{phase}.{judge}.parquet",
    "steering": "results/{model}/lss/{variant}/{langset}/{selection}.parquet",
    "contexts": "results/{model}/browser/{langset}/contexts.parquet",
    "written": "results/{model}/browser/{langset}/written.parquet",
    "costs": "results/{model}/browser/{langset}/costs.parquet",
    "curves": "results/{model}/adapters/{variant}/{adapter}/curves.parquet",
    "evaluation": "results/{model}/evaluation/{variant}/{adapter}/{task}/{lang}.parquet",
    "generation": "results/{model}/judged/{analysis}/{variant}/{langset}/{selection}"
    "/{intervention}.parquet",
    "lens": "results/{model}/lens/{variant}/{langset}.parquet",
    "scores": "results/scores/{paper}/{model}/{protocol}/{task}.parquet",
    # What is fetched: the weights, and the file beside each that names its source.
    "models": "resources/models/{model}/manifest.json",
    "text": "resources/text/{lang}.json",
    "tasks": "resources/tasks/{variant}/{task}/{lang}.json",
    "training": "resources/training/{variant}/{finetuning}.json",
    "facts": "resources/facts/{lang}.json",
    "questions": "resources/questions/{analysis}/{lang}.json",
}


def place(kind: str, **names: str) -> str:
    """Return the path of a file of a kind; names that its pattern lacks are ignored."""
    return LAYOUTS[kind].format(**names)


@cache
def _expression(kind: str) -> re.Pattern:
    parts = re.split(r"\{(\w+)\}", LAYOUTS[kind])
    pattern = "".join(
        f"(?P<{part}>[^/]+)" if number % 2 else re.escape(part) for number, part in enumerate(parts)
    )
    return re.compile(rf"(?:^|/){pattern}$")


def names_of(path: str | os.PathLike, kind: str) -> dict[str, str]:
    """Return the names of a file's cell.

    Raises:
        ValueError: the file does not lie where files of its kind do.
    """
    match = _expression(kind).search(Path(path).as_posix())
    if match is None:
        raise ValueError(f"{path} does not lie where results of its kind do: {LAYOUTS[kind]}")
    return match.groupdict()


def in_sequence(
    paths: Iterable[str], kind: str, sequence: Mapping[str, Iterable[str]]
) -> list[str]:
    """Sort the paths of results as `sequence` lists models, selections, interventions."""
    sections = ("model", "selection", "intervention")
    places = {
        key: {name: number for number, name in enumerate(sequence[f"{key}s"])} for key in sections
    }

    def rank(path: str) -> tuple:
        names = names_of(path, kind)
        ranks = (places[key].get(names[key], 0) for key in sections if key in names)
        return (*ranks, Path(path).as_posix())

    return sorted(map(str, paths), key=rank)
