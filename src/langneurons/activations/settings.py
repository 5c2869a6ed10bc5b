"""Configuration key `statistics`: what is kept about activations."""

from typing import Literal

from pydantic import Field, field_validator, model_validator

from langneurons.base.settings import Frozen, doubled

MlpSite = Literal["gate", "act", "product"]
Site = Literal["gate", "act", "product", "residual"]


class UntilStable(Frozen):
    """When enough text is read for the statistics: as soon as a selection does not change."""

    selection: str = Field(description="A name from `selections`; its neurons are compared.")
    jaccard: float = Field(
        0.98,
        gt=0,
        lt=1,
        description="Mean Jaccard index over the languages of each set that has to be reached at"
        " two budgets in a row.",
    )
    halves: bool = Field(
        True,
        description="Compare the two halves of what was read; `false`: the first half with all of"
        " it.",
    )
    slices: int = Field(
        16,
        ge=4,
        le=4096,
        description="Parts of equal size of the text, a power of two: 1, 2, 4, ... of them are"
        " read.",
    )

    @field_validator("slices")
    @classmethod
    def _doubled(cls, value: int) -> int:
        if value & (value - 1):
            below = 1 << value.bit_length() - 1
            raise ValueError(
                f"{value} is not a power of two, and each budget is twice the one before; nearest:"
                f" {below} and {2 * below}"
            )
        return value


class StatisticsConfig(Frozen):
    """What is measured in the pass over the corpus."""

    sites: tuple[Site, ...] = Field(
        ("gate", "act", "product"),
        min_length=1,
        description="gate: before the nonlinearity; act: after it; product: input of down_proj;"
        " residual: the residual stream before the first block and after each.",
    )
    histograms: tuple[MlpSite, ...] = Field(
        ("gate",),
        description="Sites with a histogram (quantiles, P(a > t)); act follows from gate.",
    )
    batch_blocks: int = Field(
        8,
        ge=1,
        le=65_536,
        description="Full blocks per forward pass; of shorter ones, as many as take their tokens.",
    )
    shards: int = Field(
        1, ge=1, le=9999, description="Number of jobs per language. Does not change results."
    )
    slices: int = Field(
        1,
        ge=1,
        le=9999,
        description="Parts of equal size of which statistics are kept beside the whole, for"
        " `stability`; a multiple of `shards`. A part is whole batches, or whole documents under"
        " `packing: document`, in the order of the text. With `until` parts of what was read: 1, 2"
        " or 4.",
    )
    until: UntilStable | None = Field(
        None,
        description="Stop reading before the end of the text when a selection is stable; left out:"
        " all of it is read.",
    )
    batch_quantiles: tuple[float, ...] = Field(
        (), description="Levels whose quantile per batch is averaged (the paper's own estimate)."
    )
    document_means: tuple[Site, ...] = Field((), description="Sites with means per document.")
    residual_outer: tuple[int, ...] = Field(
        (),
        description="Rows of the site `residual` (0: before the first block, l + 1: after block l)"
        " whose second moments across dimensions, d_model x d_model, are kept.",
    )
    max_documents: int = Field(
        2000,
        ge=1,
        description="Documents whose means are kept, at most; each takes 8 bytes of the device's"
        " memory per neuron and site.",
    )

    @model_validator(mode="after")
    def _consistent(self) -> "StatisticsConfig":
        for key in ("sites", "histograms", "document_means", "batch_quantiles", "residual_outer"):
            again = doubled(getattr(self, key))
            if again:
                raise ValueError(f"{key}: {', '.join(again)} listed more than once")
        for key in ("histograms", "document_means"):
            wrong = sorted(set(getattr(self, key)) - set(self.sites))
            if wrong:
                raise ValueError(f"{key}: {wrong} are not among sites {list(self.sites)}")
        if self.residual_outer and "residual" not in self.sites:
            raise ValueError(
                f"residual_outer: {list(self.residual_outer)}, but `residual` is not among sites"
                f" {list(self.sites)}; add it there"
            )
        if self.residual_outer and min(self.residual_outer) < 0:
            raise ValueError(
                f"residual_outer: {min(self.residual_outer)} is not a row; legal: 0 (before the"
                " first block) to the number of layers (after the last block)"
            )
        if self.slices > 1 and self.slices % self.shards:
            raise ValueError(
                f"slices: {self.slices}; each of the {self.shards} shards holds whole slices, so"
                f" legal are 1 and the multiples of {self.shards}"
            )
        if self.until is not None and self.shards > 1:
            raise ValueError(
                f"shards: {self.shards}, but with `until` one job reads the text of every language;"
                " leave `shards` out"
            )
        if self.until is not None and self.slices not in (1, 2, 4):
            raise ValueError(
                f"slices: {self.slices} parts are kept of what was read, and `until` may stop after"
                " 4 of its own slices; legal: 1, 2, 4"
            )
        for level in self.batch_quantiles:
            if not 0 < level < 1:
                raise ValueError(f"batch_quantiles: {level} is not between 0 and 1")
        if self.batch_quantiles and "gate" not in self.histograms:
            raise ValueError("batch_quantiles: they need `gate` among histograms")
        return self


class AttributionConfig(Frozen):
    """What is attributed, in a pass with gradients over the identification text."""

    site: Literal["act", "product"] = Field(
        "product", description="Where a is read: after the nonlinearity, or before down_proj."
    )
    tokens: int | None = Field(
        None, ge=1, description="Identification tokens per language, at most; all if left out."
    )
    batch_blocks: int = Field(2, ge=1, le=65_536, description="Blocks per pass with gradients.")
