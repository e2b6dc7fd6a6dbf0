"""Units of length in volume files."""

from __future__ import annotations

from pathlib import Path

from fluoronav.case.schema import CaseError

_MM = {
    **dict.fromkeys(("mm", "millimeter", "millimeters", "millimetre", "millimetres"), 1.0),
    **dict.fromkeys(("cm", "centimeter", "centimeters", "centimetre", "centimetres"), 10.0),
    **dict.fromkeys(("m", "meter", "meters", "metre", "metres"), 1000.0),
    **dict.fromkeys(("um", "\u00b5m", "\u03bcm", "micron", "microns", "micrometer", "micrometers", "micrometre"), 1e-3),
    **dict.fromkeys(("in", "inch", "inches"), 25.4),
}


def mm_per(unit: str, path: Path, field: str) -> float:
    """Length of a unit, mm; raises :class:`CaseError` for an unknown one."""
    try:
        return _MM[unit.strip().lower()]
    except KeyError:
        raise CaseError(
            f"{path}: `{field}` says {unit!r}, which is no known unit of length: mm, cm, m, um and in are read"
        ) from None
