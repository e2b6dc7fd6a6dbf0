"""Field types of a case file. Lengths in mm, angles in degrees, coordinates DICOM LPS."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field


def _mm_between(low: float, high: float) -> AfterValidator:
    """Refuses a length that cannot be in mm; zero and below are left to other rules."""

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
# Lengths with plausible limits in mm; chosen so that the same number in metres is refused.
Margin = Annotated[float, Field(gt=0), _mm_between(0.1, 200)]  # threshold of an alert
Radius = Annotated[float, Field(gt=0), _mm_between(0.2, 500)]  # of a region or a path
Shaft = Annotated[float, Field(gt=0), _mm_between(0.2, 50)]  # an instrument's diameter: needles 0.3, cannulas 15
Length = Annotated[float, Field(gt=0), _mm_between(1, 1000)]  # of an instrument, tip to tail
SourceDistance = Annotated[float, Field(gt=0), _mm_between(100, 3000)]  # from the source to the isocentre
Uncertainty = Annotated[float, Field(gt=0), _mm_between(1, 300)]  # of the C-arm's position


class CaseError(ValueError):
    """A case that cannot be used; the text names the file, what is wrong and what to do."""


class Strict(BaseModel):
    """A mapping without unknown keys, and with finite numbers only."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
