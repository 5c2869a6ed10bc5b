"""What every configuration model shares: frozen, strict about keys."""

from pydantic import BaseModel, ConfigDict

NAME = r"^[A-Za-z0-9][A-Za-z0-9._+-]*$"


class Frozen(BaseModel):
    """A configuration block: immutable, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)
