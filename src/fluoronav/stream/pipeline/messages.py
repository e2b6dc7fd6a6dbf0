"""Records to wire messages: plain dictionaries in the protocol's words."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fluoronav.stream.frame import Alert, FrameRecord, RegistrationResult
from fluoronav.wire.messages import PROTOCOL_VERSION

# What a number says that may not be left out and is not known, mm or degrees.
_UNKNOWN = 1e6


def _list(array) -> list[float] | None:
    """None also where a number is not finite: a reader would have to refuse the whole message."""
    return None if array is None or not np.isfinite(array).all() else array.ravel().tolist()


def _number(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else value


def _bounded(value: float) -> float:
    """A bound that is not finite says that nothing is known."""
    return value if math.isfinite(value) else _UNKNOWN


def _registration(r: RegistrationResult | None) -> dict[str, Any] | None:
    if r is None or not np.isfinite(r.T_camera_ct).all():
        return None
    return {
        "T_camera_ct": _list(r.T_camera_ct),
        "score": _bounded(r.score) if r.score < 1 else 1.0,
        "sigma": [_bounded(s) for s in r.sigma.tolist()],
        "tre_mm": _bounded(r.tre_mm),
        "tre_image_mm": _bounded(r.tre_image_mm),
        "age": r.age,
        "age_ms": round(r.age_ms, 1),
        "accepted": r.accepted,
    }


def overlay_message(
    frame: FrameRecord, source: str, deadline_ms: float, dropped: dict[str, int], stages: dict[str, float], mode: str
) -> dict[str, Any]:
    """The overlay of a frame, but for ``t_sent`` and ``missed``, which are known when it leaves."""
    message: dict[str, Any] = {
        "v": PROTOCOL_VERSION,
        "source": source,
        "seq": frame.seq,
        "t_acq": frame.t_acq,
        "t_recv": frame.t_recv,
        "t_sent": 0,
        "deadline_ms": deadline_ms,
        "missed": False,
        "dropped": dropped,
        "stages": {name: round(ms, 3) for name, ms in stages.items()},
        "status": frame.status,
        "registration": _registration(frame.registration),
        "instruments": [
            {
                "id": i.id,
                "kind": i.kind,
                "tip_px": _list(i.tip_px),
                "tail_px": _list(i.tail_px),
                "tip_ct": _list(i.tip_ct),
                "axis_ct": _list(i.axis_ct),
                "sigma_mm": _bounded(i.sigma_mm),
                "origin": i.origin,
                "age": i.age,
                "age_ms": round(i.age_ms, 1),
                "method": i.method,
                "shaft_px": None if (shaft := i.shaft_px()) is None or not np.isfinite(shaft).all() else shaft.tolist(),
            }
            for i in frame.instruments
        ],
        "distances": [
            {
                "instrument": d.instrument,
                "structure": d.structure,
                "distance_mm": d.distance_mm,
                "lower_mm": d.lower_mm,
                "nearest_ct": _list(d.nearest_ct),
                "level": d.level,
                "ahead_mm": _number(d.ahead_mm),
                "contact_s": _number(d.contact_s),
            }
            for d in frame.distances
            if math.isfinite(d.distance_mm) and math.isfinite(d.lower_mm) and np.isfinite(d.nearest_ct).all()
        ],
        "plan": [
            {
                "trajectory": p.trajectory,
                "entry_px": _list(p.entry_px),
                "target_px": _list(p.target_px),
                "angle_deg": _number(p.angle_deg),
                "lateral_mm": _number(p.lateral_mm),
                "depth_left_mm": _number(p.depth_left_mm),
                "beside_mm": _list(p.lateral_offset_mm),
            }
            for p in frame.plan
        ],
        "outlines": [
            {
                "structure": o.structure,
                "color": o.color,
                "paths": [path.tolist() for path in o.paths if np.isfinite(path).all()],
            }
            for o in frame.outlines
        ],
        "models": frame.models,
        "mode": mode,
    }
    if frame.objects:
        message["objects"] = [{"name": o.name} | r for o in frame.objects if (r := _registration(o.registration))]
    return message


def alert_message(alert: Alert, source: str, instance: str, seq: int, t_acq: int) -> dict[str, Any]:
    """An alert, as of the frame that it goes with (0, 0 where there is none).

    `instance` tells one start of the pipeline from another: the alerts of one that has ended are of nothing any more.
    """
    return {
        "v": PROTOCOL_VERSION,
        "source": source,
        "instance": instance,
        "id": alert.id,
        "seq": seq,
        "t_acq": t_acq,
        "t_raised": alert.t_raised,
        "state": alert.state,
        "priority": alert.priority,
        "kind": alert.kind,
        "instrument": alert.instrument,
        "structure": alert.structure,
        "distance_mm": _number(alert.distance_mm),
        "lower_mm": _number(alert.lower_mm),
        "threshold_mm": alert.threshold_mm,
        "text": alert.text,
    }
