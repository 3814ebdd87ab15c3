"""Figure types: what every table of figures is made of. No figure."""

from enum import StrEnum
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Ratio = Annotated[float, Field(gt=0, le=1)]
Probability = Annotated[float, Field(ge=0, lt=1)]
Words = Annotated[str, Field(min_length=1)]


class Confidence(StrEnum):
    """How far to trust a figure; ``guess``: nobody measured it."""

    HIGH = "high"
    MEDIUM = "medium"
    LOW = "low"
    GUESS = "guess"


class Figures(BaseModel):
    """Immutable, strict about names, never nan or inf."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
