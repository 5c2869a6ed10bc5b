"""What a file of printed numbers (`results.published`) holds; see `reporting.published`."""

import csv
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from langneurons.base.errors import ConfigError
from langneurons.base.messages import defined
from langneurons.base.settings import Frozen
from langneurons.base.yaml import read_yaml

STATISTICS, NEURONS = "activations", "neurons"
CORRELATIONS = "masks_correlations"
Cell = Literal["model", "task", "choice", "selection", "lang", "intervention", "metric"]
Text = Annotated[str, Field(min_length=1)]


class Misprint(Frozen):
    """A row that the paper prints wrongly, and what it means."""

    where: dict[str, str]
    meant: dict[str, str]


class PrintedTable(Frozen):
    """One printed table: its CSV, a printed row a line, and which of our cells it shows."""

    item: Text = Field(description="What the paper calls it.")
    file: Text = Field(description="CSV beside this file.")
    task: Text = Field(description="Name of the task, or `activations`.")
    finetuning: str | None = Field(None, description="Name of the fine-tuning.")
    values: dict[str, Text] = Field(min_length=1, description="Column of the CSV -> metric.")
    selection: str | None = Field(None, description="Selection of all rows; else column `method`.")
    misprints: tuple[Misprint, ...] = Field((), description="Rows that are printed wrongly.")

    @model_validator(mode="after")
    def _trained(self) -> "PrintedTable":
        if self.task != STATISTICS and self.finetuning is None:
            raise ValueError("finetuning: missing; name the fine-tuning whose adapters are scored")
        return self

    @property
    def columns(self) -> list[str]:
        """The columns that the CSV must have."""
        if self.task == STATISTICS:
            return ["model", *self.values]
        method = [] if self.selection else ["method"]
        return ["model", "eval_language", *method, *self.values]


class MaskFiles(Frozen):
    """The CSV files that hold the counts of masks."""

    layers: Text
    shared: Text
    multiplicity: Text


class Mask(Frozen):
    """The neuron table that a mask stands beside."""

    model: Text
    selection: Text


class Masks(Frozen):
    """Counts of published masks."""

    files: MaskFiles
    of: dict[str, Mask] = Field(min_length=1)


class Layout(Frozen):
    """A table as the paper lays it out."""

    item: Text
    title: Text
    rows: tuple[Cell, ...] = Field(min_length=1)
    columns: tuple[Cell, ...] = Field(min_length=1)
    of: str | None = None
    file: str | None = None
    models: tuple[str, ...] | None = None
    pairs: int | None = Field(None, ge=1)


class Printed(Frozen):
    """A file of printed numbers."""

    layouts: tuple[Layout, ...] = Field(min_length=1, description="Tables as the paper has them.")
    source: str = ""
    models: dict[str, Text] = Field(default_factory=dict, description="Printed name -> ours.")
    interventions: dict[str, Text] = Field(default_factory=dict, description="Printed -> ours.")
    tables: tuple[PrintedTable, ...] = Field((), description="Printed tables.")
    masks: Masks | None = Field(None, description="Counts of published masks.")

    @model_validator(mode="after")
    def _something(self) -> "Printed":
        if not self.tables and self.masks is None:
            raise ValueError("tables: missing; name printed tables, or counts of `masks`")
        items = {table.item for table in self.tables}
        for layout in self.layouts:
            item = layout.of or layout.item
            if self.masks is None and item not in items:
                raise ValueError(
                    f"layouts: {item!r} is not an item of tables ({', '.join(sorted(items))})"
                )
        return self

    def files(self) -> dict[str, list[str]]:
        """Return the CSV files beside this one, each with the columns that it must have."""
        found = {table.file: table.columns for table in self.tables}
        if self.masks is not None:
            files = self.masks.files
            found[files.layers] = ["mask", "language", "layer", "neurons"]
            found[files.shared] = ["mask", "language", "other", "neurons"]
            found[files.multiplicity] = ["mask", "languages", "neurons"]
        return found

    @property
    def table_names(self) -> list[str]:
        """The file name of every table that is laid out like a printed one."""
        names = [layout.file or layout.item.lower().replace(" ", "") for layout in self.layouts]
        return names if self.masks is None else [*names, CORRELATIONS]

    @property
    def kinds(self) -> set[str]:
        """What the numbers are of: `scores`, `activations` and `neurons`."""
        tasks = {table.task for table in self.tables}
        found = {STATISTICS if task == STATISTICS else "scores" for task in tasks}
        return found if self.masks is None else found | {NEURONS}


def read_printed(path: Path) -> Printed:
    """Return what a file of printed numbers says.

    Raises:
        ConfigError: the file is another kind of YAML; the error names each wrong key.
    """
    content, shown = read_yaml(path), f"results.published: {path}"
    if not {"tables", "masks", "layouts"} & set(content):
        raise ConfigError(
            f"{shown}: is not a file of printed numbers; such a file has the keys layouts and"
            " tables, or layouts and masks (config/published/mondal2025.yaml), and this one has:"
            f" {', '.join(map(str, content))}."
        )
    return defined(Printed, content, shown)


def missing_columns(path: Path, wanted: list[str]) -> list[str]:
    """Return the columns that a CSV file lacks."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        header: list[Any] = next(csv.reader(file), [])
    return [column for column in wanted if column not in header]
