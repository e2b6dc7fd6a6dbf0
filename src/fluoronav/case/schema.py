"""What the parts of a case file share. Lengths in mm, angles in degrees, coordinates DICOM LPS."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field


def _mm_between(low: float, high: float) -> AfterValidator:
    """Refuses a length that is hardly in mm; zero and less are left to other rules."""

    def checked(value: float) -> float:
        if 0 < value < low:
            raise ValueError(f"{value:g} mm is too short to be meant; at least {low:g} mm (is it in metres?)")
        if value > high:
            raise ValueError(f"{value:g} mm is too long to be meant; at most {high:g} mm (is it in micrometres?)")
        return value

    return AfterValidator(checked)


Point = Annotated[tuple[float, float, float], Field(description="x, y, z in LPS mm")]
Name = Annotated[str, Field(min_length=1, max_length=64)]
Color = Annotated[str, Field(pattern=r"^#[0-9a-fA-F]{6}$")]
# Lengths, each within what the thing can have in mm: in metres all of them would be far too short.
Margin = Annotated[float, Field(gt=0), _mm_between(0.1, 200)]  # at which a structure is warned of
Radius = Annotated[float, Field(gt=0), _mm_between(0.2, 500)]  # of a region, a path
Shaft = Annotated[float, Field(gt=0), _mm_between(0.2, 50)]  # an instrument's diameter: needles 0.3, cannulas 15
Length = Annotated[float, Field(gt=0), _mm_between(1, 1000)]  # an instrument's, tip to tail
SourceDistance = Annotated[float, Field(gt=0), _mm_between(100, 3000)]  # of a C-arm, to its isocentre
Uncertainty = Annotated[float, Field(gt=0), _mm_between(1, 300)]  # of a C-arm's place


class CaseError(ValueError):
    """A case that cannot be used; the text names the file, what is wrong and what to do."""


class Strict(BaseModel):
    """A mapping that knows all of its keys, and whose numbers are numbers."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
