"""What a report says: measurements of structures, alerts of the live case, and the accepted registration."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from pydicom.sr.coding import Code

from fluoronav.dicom.objects.anatomy import ANATOMICAL, own_code

_MM, _DEG, _ML = (Code(v, "UCUM", v) for v in ("mm", "deg", "mL"))
_S, _ONE, _HU = Code("s", "UCUM", "s"), Code("1", "UCUM", "no units"), Code("[hnsf'U]", "UCUM", "Hounsfield unit")
# Quantities by the names that their fields have, with unit; SNOMED CT and DCM where they have the concept.
QUANTITIES: dict[str, tuple[Code, Code]] = {
    "volume_ml": (Code("118565006", "SCT", "Volume"), _ML),
    "length_mm": (Code("410668003", "SCT", "Length"), _MM),
    "diameter_mm": (Code("81827009", "SCT", "Diameter"), _MM),
    "height_mm": (Code("121207", "DCM", "Height"), _MM),
    "width_mm": (Code("103355008", "SCT", "Width"), _MM),
    "radius_mm": (Code("131190003", "SCT", "Radius"), _MM),
    "long_axis_mm": (Code("103339001", "SCT", "Long Axis"), _MM),
    "short_axis_mm": (Code("103340004", "SCT", "Short Axis"), _MM),
    "angle_deg": (Code("1483009", "SCT", "Angle"), _DEG),
    "attenuation_hu": (Code("112031", "DCM", "Attenuation Coefficient"), _HU),
    "distance_mm": (Code("121206", "DCM", "Distance"), _MM),
    "lower_mm": (own_code("Lower bound of distance, 95 %"), _MM),
    "threshold_mm": (own_code("Threshold of alert"), _MM),
    "lasted_s": (own_code("Duration of alert"), _S),
    "tre_mm": (own_code("Bound of registration error at target, 95 %"), _MM),
    "tre_image_mm": (own_code("Bound of registration error across the ray, 95 %"), _MM),
    "score": (own_code("Agreement of image and CT"), _ONE),
}
_ALERT, _REGISTRATION = own_code("Alert"), own_code("Registration")
_MOST_TEXT = 1024  # of a comment; chosen: a few lines


@dataclass(frozen=True)
class Measurement:
    """One number of a finding; `quantity` is a key of :data:`QUANTITIES`, whose name ends in the unit."""

    quantity: str
    value: float


@dataclass(frozen=True)
class Finding:
    """One group of a measurement report (PS3.16 TID 1501).

    Attributes
    ----------
    name : str
        What it is about: a structure of the case, or a word for people.
    measurements : tuple of Measurement
    comment : str
    kind : pydicom Code
        What was found.
    structure : str
        Name of the structure that it is found at; empty for none.
    segment : int, optional
        Number of the structure's segment in the segmentation that the report refers to.
    """

    name: str
    measurements: tuple[Measurement, ...] = ()
    comment: str = ""
    kind: Code = ANATOMICAL
    structure: str = ""
    segment: int | None = None

    def content(self) -> str:
        """Text that two findings share only if they say the same."""
        return json.dumps(asdict(self), sort_keys=True, default=str)


def alert_findings(alerts: Iterable[Mapping[str, Any]], until: str = "at the end") -> tuple[Finding, ...]:
    """One finding for each alert of a run, in the order in which they were raised.

    Parameters
    ----------
    alerts : iterable of mapping
        Messages as they were sent (docs/wire-protocol.md, `alert/*`), in their order.
    until : str
        When an alert is called open that was not cleared: at the end of the messages.
    """
    steps: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for alert in alerts:
        steps.setdefault((str(alert.get("instance") or ""), str(alert["id"])), []).append(alert)
    return tuple(_alert(steps_of_one, until) for steps_of_one in steps.values())


def registration_finding(registration: Mapping[str, Any], case: str = "") -> Finding:
    """The finding of a registration (the key `registration` of an overlay) that a person has accepted."""
    numbers = tuple(Measurement(q, float(registration[q])) for q in ("score", "tre_mm", "tre_image_mm"))
    comment = f"Accepted registration of the CT to the X-ray image{' of case ' + case if case else ''}"
    return Finding("registration", numbers, comment, _REGISTRATION)


def _alert(steps: list[Mapping[str, Any]], until: str) -> Finding:
    raised, last = steps[0], steps[-1]
    at = datetime.fromtimestamp(raised["t_raised"] / 1e9, UTC)
    said = {s["state"] for s in steps}
    numbers = [
        Measurement(q, float(raised[q]))
        for q in ("distance_mm", "lower_mm", "threshold_mm")
        if raised.get(q) is not None
    ]
    # Both by the grabber's clock; an alert without a frame has no time by it.
    if "cleared" in said and last.get("t_acq") and raised.get("t_acq"):
        numbers.append(Measurement("lasted_s", max(last["t_acq"] - raised["t_acq"], 0) / 1e9))
    end = "cleared" if "cleared" in said else f"open {until}"
    acknowledged = ", acknowledged" if "acknowledged" in said else ""
    who = f", {raised['instrument']}" if raised.get("instrument") else ""
    head = f"{at:%H:%M:%S} UTC, {raised['priority']} priority, {raised['kind']}{who}"
    comment = f"{head}: {raised['text']} ({end}{acknowledged})"
    return Finding(f"alert {raised['id']}", tuple(numbers), comment[:_MOST_TEXT], _ALERT, raised.get("structure") or "")
