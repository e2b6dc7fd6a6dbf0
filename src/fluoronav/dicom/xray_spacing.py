"""The size of a pixel at the detector, by the first tag that says it, checked against the others that do.

ImagerPixelSpacing (0018,1164) says it directly. Without it, it follows from the detector's field of view, whose
dimensions are those of the image (PS3.3 C.8.7.3 and C.8.19.6.5), or from the detector's elements and their binning
(PS3.3 C.8.11.4).
"""

from __future__ import annotations

from dataclasses import dataclass

from fluoronav.dicom.errors import DicomError
from fluoronav.dicom.xray_header import XrayHeader


@dataclass(frozen=True, slots=True)
class SpacingLimits:
    """Limits of a pixel's size; all are chosen. Those without a unit are relative differences."""

    least_pixel_mm: float = 0.02  # detectors have pixels of 0.05 to 0.5 mm
    most_pixel_mm: float = 2.0
    aspect: float = 0.01  # between two statements of a pixel's aspect ratio: rounding
    field: float = 1.2  # ratio of the image's size to the detector's field of view


LIMITS = SpacingLimits()


@dataclass(frozen=True)
class DetectorSpacing:
    """Distances of rows and of columns at the detector.

    Attributes
    ----------
    down_mm, right_mm : float
    source : str
        The tag that they are from.
    """

    down_mm: float
    right_mm: float
    source: str


def read_spacing(header: XrayHeader) -> DetectorSpacing | None:
    """The spacing at the detector; None where nothing says it.

    Raises
    ------
    DicomError
        Tags contradict each other, or say what no detector has.
    """
    spacing = _imager_spacing(header) or _of_field(header) or _of_elements(header)
    _check_aspect(header, spacing)
    if spacing is None:
        return None
    least, most = LIMITS.least_pixel_mm, LIMITS.most_pixel_mm
    if not all(least <= s <= most for s in (spacing.down_mm, spacing.right_mm)):
        raise DicomError(
            f"{header.path}: {spacing.source} is {spacing.down_mm:g} x {spacing.right_mm:g}, which no detector has; "
            f"{least:g} to {most:g} mm was expected"
        )
    _check_at_patient(header, spacing)
    _check_field(header, spacing)
    return spacing


def differ(a: float, b: float, relative: float) -> bool:
    """Whether two numbers differ by more than a fraction of the second."""
    return abs(a - b) > relative * abs(b)


def field_dimensions(header: XrayHeader) -> tuple[float, ...]:
    """Dimensions of the detector's field of view, mm: of a rectangle two, of a circle one; empty where not said."""
    name = "FieldOfViewDimensions"
    if header.get(name) is None:
        name = "FieldOfViewDimensionsInFloat"  # enhanced XA
    value = header.get(name)
    if value is None:
        return ()
    values = [value] if isinstance(value, (str, int, float)) else value
    try:
        dimensions = tuple(float(v) for v in values)
    except (TypeError, ValueError):
        dimensions = ()
    if not 1 <= len(dimensions) <= 2 or not all(0 < d < 1e4 for d in dimensions):
        tag = "(0018,1149)" if name == "FieldOfViewDimensions" else "(0018,9461)"
        raise DicomError(f"{header.path}: {name} {tag} is {value!r}; lengths in mm were expected")
    return dimensions


def _imager_spacing(header: XrayHeader) -> DetectorSpacing | None:
    spacing = header.numbers("ImagerPixelSpacing", 2)
    return None if spacing is None else DetectorSpacing(spacing[0], spacing[1], "ImagerPixelSpacing (0018,1164)")


def _of_field(header: XrayHeader) -> DetectorSpacing | None:
    """From the field of view's dimensions, where the image of square pixels covers it."""
    dimensions = field_dimensions(header)
    if not dimensions:
        return None
    rows, cols = header.integer("Rows", 0), header.integer("Columns", 0)
    ways = [(d, d) for d in dimensions] if len(dimensions) == 1 else [dimensions, dimensions[::-1]]
    for height_mm, width_mm in ways:
        down_mm, right_mm = height_mm / rows, width_mm / cols
        if not differ(down_mm, right_mm, LIMITS.aspect):
            return DetectorSpacing(down_mm, right_mm, "FieldOfViewDimensions (0018,1149) over Rows and Columns")
    return None


def _of_elements(header: XrayHeader) -> DetectorSpacing | None:
    spacing, binning = header.numbers("DetectorElementSpacing", 2), header.numbers("DetectorBinning", 2)
    if spacing is None or binning is None:
        return None
    turned = (header.number("FieldOfViewRotation") or 0) % 180 == 90
    down_mm, right_mm = (s * b for s, b in zip(spacing, binning, strict=True))
    if turned:
        down_mm, right_mm = right_mm, down_mm
    source = "DetectorElementSpacing (0018,7022) times DetectorBinning (0018,701a)"
    return DetectorSpacing(down_mm, right_mm, source)


def _check_aspect(header: XrayHeader, spacing: DetectorSpacing | None) -> None:
    aspect = header.numbers("PixelAspectRatio", 2)
    if aspect is None:
        return
    said = f"{header.path}: PixelAspectRatio (0028,0034) {aspect[0]:g} to {aspect[1]:g}"
    if spacing is None:
        if differ(aspect[0], aspect[1], LIMITS.aspect):
            raise DicomError(f"{said} and no ImagerPixelSpacing (0018,1164): resample it to square pixels")
    elif aspect[1] <= 0 or differ(aspect[0] / aspect[1], spacing.down_mm / spacing.right_mm, LIMITS.aspect):
        raise DicomError(
            f"{said} and {spacing.source} {spacing.down_mm:g} x {spacing.right_mm:g} mm contradict each other"
        )


def _check_at_patient(header: XrayHeader, spacing: DetectorSpacing) -> None:
    """Compares with PixelSpacing, which is that in the patient."""
    at_patient = header.numbers("PixelSpacing", 2)
    if at_patient is None:
        return
    down, right = spacing.down_mm, spacing.right_mm
    if min(at_patient) <= 0 or differ(at_patient[0] / at_patient[1], down / right, LIMITS.aspect):
        raise DicomError(
            f"{header.path}: PixelSpacing (0028,0030) {at_patient[0]:g} x {at_patient[1]:g} and {spacing.source} "
            f"{down:g} x {right:g} mm contradict each other"
        )
    if at_patient[0] > down * (1 + LIMITS.aspect):
        raise DicomError(
            f"{header.path}: PixelSpacing (0028,0030) {at_patient[0]:g} mm is more than {spacing.source} {down:g} mm; "
            "in the patient, nearer the source, a pixel is smaller"
        )


def _check_field(header: XrayHeader, spacing: DetectorSpacing) -> None:
    """Refuses an image that is larger than its detector's field of view, since its spacing is then wrong."""
    dimensions = field_dimensions(header)
    height_mm, width_mm = header.integer("Rows", 0) * spacing.down_mm, header.integer("Columns", 0) * spacing.right_mm
    if dimensions and max(height_mm, width_mm) > LIMITS.field * max(dimensions):
        raise DicomError(
            f"{header.path}: is {height_mm:.0f} x {width_mm:.0f} mm by its {spacing.source}, but its "
            f"FieldOfViewDimensions (0018,1149) are {max(dimensions):g} mm: one of them is of another zoom"
        )
