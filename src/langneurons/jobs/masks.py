"""Published neurons of the hub: fetched, compared with the model, kept as one file."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from langneurons.base.digests import file_digest
from langneurons.base.errors import InputError
from langneurons.base.io import read_json
from langneurons.models.hub import persist
from langneurons.models.load import source_name
from langneurons.models.settings import ModelEntry
from langneurons.selection.methods.published import Published, check_origin
from langneurons.selection.shared import shared_table
from langneurons.selection.table import NeuronTable
from langneurons.sharing.folder import read_folder
from langneurons.sharing.hub import pull
from langneurons.sharing.neurons import NAME, neurons_header, write_neurons


def prepare_mask(settings: Mapping[str, Any], manifest: str | Path, target: str | Path) -> int:
    """Write the published neurons of a repository for one model; return their number.

    settings: `selection`, its keys, and `needed`, the languages of the sets it is used on;
    manifest: of the prepared model.

    Raises:
        ValueError: The repository holds no such neurons, or those of another model, revision,
            tokenizer or size, or of other languages.
    """
    chosen = Published.model_validate(settings["selection"])
    own = read_json(manifest)
    entry = ModelEntry.model_validate({"source": own["source"]})
    own["model"] = source_name(entry.source)
    what = f"{chosen.repo} at {chosen.revision}"
    table = _mask(chosen, own, what) if chosen.file else _shared(chosen, own, what)
    if table.units != "neurons":
        raise InputError(f"{what}: it holds {table.units} of the residual stream, not neurons.")
    if (table.n_layers, table.d_mlp) != (own["n_layers"], own["d_mlp"]):
        raise InputError(
            f"{what}: neurons of {table.n_layers} layers x {table.d_mlp}; the model"
            f" {own['model']} has {own['n_layers']} x {own['d_mlp']}. They are of another model."
        )
    lacking = sorted(set(settings["needed"]) - set(table.languages))
    if lacking:
        raise InputError(
            f"{what}: no neurons of {', '.join(lacking)}; there are those of"
            f" {', '.join(table.languages)}. Use the selection on other `language_sets`."
        )
    write_neurons(target, table.frame, neurons_header(table.frame, table.metadata, what))
    return table.unique


def _shared(chosen: Published, own: Mapping[str, Any], what: str) -> NeuronTable:
    folder = pull(str(chosen.repo), chosen.revision, "neurons")
    read_folder(folder, "neurons")
    _check_digest(chosen, folder / NAME, what)
    table = shared_table(folder / NAME)
    check_origin(what, table.metadata, own, chosen.model)
    return table


def _mask(chosen: Published, own: Mapping[str, Any], what: str) -> NeuronTable:
    import huggingface_hub

    path = persist(
        f"model {what}, {chosen.file}",
        lambda: huggingface_hub.hf_hub_download(
            str(chosen.repo), str(chosen.file), revision=chosen.revision
        ),
    )
    _check_digest(chosen, Path(path), what)
    d_mlp = chosen.neurons_per_layer or own["d_mlp"]
    table = NeuronTable.from_pth(path, chosen.knows or (), d_mlp)
    # The file names neither; that it fits the model is all that can be known of it.
    table.metadata |= {"model": own["model"], "revision": own["revision"]}
    return table


def _check_digest(chosen: Published, path: Path, what: str) -> None:
    found = file_digest(path, 64)
    if chosen.sha256 not in (None, found):
        raise InputError(f"{what}: the SHA-256 of {path.name} is {found}, not {chosen.sha256}.")
