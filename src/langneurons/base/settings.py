"""What every configuration model shares: frozen, strict about keys."""

import re
from collections.abc import Iterable
from types import NoneType, UnionType
from typing import Annotated, Any, ClassVar, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field

NAME = r"^[A-Za-z0-9][A-Za-z0-9._+-]*$"
NAME_LENGTH = 60
# What every random generator that a job seeds accepts.
Seed = Annotated[int, Field(ge=0, le=2**32 - 1)]
NEWEST = "newest"
COMMIT = rf"^([0-9a-f]{{40}}|{NEWEST})$"
DATASET = r"^([\w.-]+/)?[\w.-]+$"
KEPT_COMMIT = (
    f"`{NEWEST}`: the one that is newest when the data set is first fetched, kept for all languages"
    " in resources/commits and shown in the table `sources`"
)


class Frozen(BaseModel):
    """A configuration block: immutable, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)
    # The key of a list whose only item may be written in the block itself.
    one_of: ClassVar[str | None] = None


def is_name(value: object) -> bool:
    """Return whether a value can stand in file names and wildcards."""
    return re.fullmatch(NAME, str(value)) is not None and len(str(value)) <= NAME_LENGTH


def doubled(values: Iterable[object]) -> list[str]:
    """Return the values that are listed more than once, in their order."""
    values = list(values)
    return list(dict.fromkeys(str(value) for value in values if values.count(value) > 1))


def bare(annotation: Any) -> Any:
    """Return an annotation without `Annotated` and without `None`."""
    while get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    if get_origin(annotation) in (Union, UnionType):
        kept = [item for item in get_args(annotation) if item is not NoneType]
        if len(kept) == 1:
            return bare(kept[0])
    return annotation


def blocks(annotation: Any) -> list[type[BaseModel]]:
    """Return the blocks that may stand at an annotation: several where a tag decides."""
    plain = bare(annotation)
    if isinstance(plain, type) and issubclass(plain, BaseModel):
        return [plain]
    if get_origin(plain) in (Union, UnionType):
        return [model for item in get_args(plain) for model in blocks(item)]
    return []
