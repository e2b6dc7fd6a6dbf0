"""What the parts of a case file share. Lengths in mm, angles in degrees, coordinates DICOM LPS."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Point = Annotated[tuple[float, float, float], Field(description="x, y, z in LPS mm")]
Name = Annotated[str, Field(min_length=1, max_length=64)]
Color = Annotated[str, Field(pattern=r"^#[0-9a-fA-F]{6}$")]


class CaseError(ValueError):
    """A case that cannot be used; the text names the file, what is wrong and what to do."""


class Strict(BaseModel):
    """A mapping that knows all of its keys, and whose numbers are numbers."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
