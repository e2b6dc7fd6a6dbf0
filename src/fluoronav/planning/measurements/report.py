"""Measurements and flags as findings of a DICOM report (PS3.16 TID 1500). Needs the extra `pacs`."""

from __future__ import annotations

from collections.abc import Sequence

from fluoronav.dicom.objects import Finding, Measurement
from fluoronav.dicom.objects.anatomy import own_code
from fluoronav.planning.measurements.errors import Refused
from fluoronav.planning.plan.schema import Flag, Item, Measured

# Quantity of the report by a word of the measurement's name; the first that fits. The rest go by the unit.
_BY_NAME = (
    ("recist_long", "long_axis_mm"), ("recist_short", "short_axis_mm"), ("height", "height_mm"), ("width", "width_mm"),
    ("radius", "radius_mm"), ("distance", "distance_mm"), ("margin", "distance_mm"),
)  # fmt: skip
_BY_UNIT = {"mm": "length_mm", "deg": "angle_deg", "cm3": "volume_ml", "HU": "attenuation_hu"}
_FLAG = own_code("Flag")
_MOST_TEXT = 1024  # of a comment; as of other findings


def findings_of(items: Sequence[Item]) -> list[Finding]:
    """One finding for each measurement and flag of a plan.

    The method, the standard deviation and the points (LPS mm) are in its comment: TID 1501 has no place for them that
    viewers show.

    Raises
    ------
    Refused
        There is nothing to report.
    """
    out = [_measured(item) for item in items if isinstance(item, Measured) and item.unit in _BY_UNIT]
    out += [_flag(item) for item in items if isinstance(item, Flag)]
    if not out:
        raise Refused("nothing was measured; there is nothing to report")
    return out


def _measured(item: Measured) -> Finding:
    quantity = next((q for word, q in _BY_NAME if word in item.name and item.unit == "mm"), _BY_UNIT[item.unit])
    known = f"; standard deviation {item.uncertainty:g} {item.unit}" if item.uncertainty is not None else ""
    points = ", ".join("({:.1f} {:.1f} {:.1f})".format(*p) for p in item.points_ct)
    where = f"; points LPS mm: {points}" if points else ""
    comment = f"{item.name}, {item.origin}: {item.method}{known}{where}"[:_MOST_TEXT]
    name = f"{item.structure} {item.name}" if item.structure else item.name
    return Finding(name, (Measurement(quantity, item.value),), comment, structure=item.structure or "")


def _flag(item: Flag) -> Finding:
    by = f"acknowledged by {item.acknowledged_by}" if item.acknowledged_by else "not acknowledged"
    return Finding(item.id, (), f"{item.text} ({by})"[:_MOST_TEXT], _FLAG, item.structure or "")
