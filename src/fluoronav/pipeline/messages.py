"""Records to wire messages: plain dictionaries in the protocol's words."""

from __future__ import annotations

from typing import Any

from fluoronav.records import Alert, FrameRecord, RegistrationResult
from fluoronav.wire.messages import PROTOCOL_VERSION


def _list(array) -> list[float] | None:
    return None if array is None else array.ravel().tolist()


def _registration(r: RegistrationResult) -> dict[str, Any]:
    return {
        "T_camera_ct": _list(r.T_camera_ct),
        "score": r.score,
        "sigma": _list(r.sigma),
        "tre_mm": r.tre_mm,
        "tre_image_mm": r.tre_image_mm,
        "age": r.age,
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
        "registration": None if frame.registration is None else _registration(frame.registration),
        "instruments": [
            {
                "id": i.id,
                "kind": i.kind,
                "tip_px": _list(i.tip_px),
                "tail_px": _list(i.tail_px),
                "tip_ct": _list(i.tip_ct),
                "axis_ct": _list(i.axis_ct),
                "sigma_mm": i.sigma_mm,
                "origin": i.origin,
                "age": i.age,
                "method": i.method,
                "shaft_px": None if (shaft := i.shaft_px()) is None else shaft.tolist(),
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
                "ahead_mm": d.ahead_mm,
                "contact_s": d.contact_s,
            }
            for d in frame.distances
        ],
        "plan": [
            {
                "trajectory": p.trajectory,
                "entry_px": _list(p.entry_px),
                "target_px": _list(p.target_px),
                "angle_deg": p.angle_deg,
                "lateral_mm": p.lateral_mm,
                "depth_left_mm": p.depth_left_mm,
                "beside_mm": _list(p.beside_mm),
            }
            for p in frame.plan
        ],
        "outlines": [
            {"structure": o.structure, "color": o.color, "paths": [path.tolist() for path in o.paths]}
            for o in frame.outlines
        ],
        "models": frame.models,
        "mode": mode,
    }
    if frame.objects:
        message["objects"] = [{"name": o.name} | _registration(o.registration) for o in frame.objects]
    return message


def alert_message(alert: Alert, source: str, seq: int, t_acq: int) -> dict[str, Any]:
    """An alert, as of the frame that it goes with (0, 0 where there is none)."""
    return {
        "v": PROTOCOL_VERSION,
        "source": source,
        "id": alert.id,
        "seq": seq,
        "t_acq": t_acq,
        "t_raised": alert.t_raised,
        "state": alert.state,
        "priority": alert.priority,
        "kind": alert.kind,
        "instrument": alert.instrument,
        "structure": alert.structure,
        "distance_mm": alert.distance_mm,
        "lower_mm": alert.lower_mm,
        "threshold_mm": alert.threshold_mm,
        "text": alert.text,
    }
