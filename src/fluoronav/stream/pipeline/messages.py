"""Results to wire messages: one function for each kind of message that the pipeline sends."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from msgspec import UNSET, UnsetType
from numpy.typing import NDArray

from fluoronav import __version__
from fluoronav.stream import frame as stream
from fluoronav.stream.breathing import Breathing
from fluoronav.stream.frame import FrameRecord, RegistrationResult
from fluoronav.stream.look import Look
from fluoronav.stream.pipeline.accounting import FrameTotals
from fluoronav.wire import messages as wire
from fluoronav.wire.values import PROTOCOL_VERSION

# What a number says that may not be left out and is not known, mm or degrees.
_UNKNOWN = 1e6


def _list(array: NDArray[Any] | None) -> list[float] | None:
    """None also where a number is not finite: a reader would have to refuse the whole message."""
    if array is None:
        return None
    values: list[float] = array.ravel().tolist()
    return values if all(map(math.isfinite, values)) else None


def _path(points: NDArray[Any] | None) -> list[list[float]] | None:
    return None if points is None or not np.isfinite(points).all() else points.tolist()


def _number(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else value


def _bounded(value: float) -> float:
    """A bound that is not finite says that nothing is known."""
    return value if math.isfinite(value) else _UNKNOWN


def _pose(r: RegistrationResult | None) -> dict[str, Any] | None:
    T_camera_ct = None if r is None else _list(r.T_camera_ct)
    if r is None or T_camera_ct is None:
        return None
    return {
        "T_camera_ct": T_camera_ct,
        "score": _bounded(r.score) if r.score < 1 else 1.0,
        "sigma": [_bounded(s) for s in r.sigma.tolist()],
        "tre_mm": _bounded(r.tre_mm),
        "tre_image_mm": _bounded(r.tre_image_mm),
        "age": r.age,
        "age_ms": round(r.age_ms, 1),
        "accepted": r.accepted,
        "turn_deg": _number(r.turn_deg),
        "bone": r.bone,
    }


def _instrument(i: stream.Instrument) -> wire.Instrument:
    return wire.Instrument(
        id=i.id,
        kind=i.kind,
        tip_px=_list(i.tip_px),
        tail_px=_list(i.tail_px),
        tip_ct=_list(i.tip_ct),
        axis_ct=_list(i.axis_ct),
        sigma_mm=_bounded(i.sigma_mm),
        origin=i.origin,
        age=i.age,
        age_ms=round(i.age_ms, 1),
        method=i.method,
        shaft_px=_path(i.shaft_px()),
    )


def _distances(distances: Sequence[stream.Distance]) -> list[wire.Distance]:
    """Those that are known."""
    return [
        wire.Distance(
            instrument=d.instrument,
            structure=d.structure,
            distance_mm=d.distance_mm,
            lower_mm=d.lower_mm,
            nearest_ct=nearest_ct,
            level=d.level,
            ahead_mm=_number(d.ahead_mm),
            contact_s=_number(d.contact_s),
        )
        for d in distances
        if math.isfinite(d.distance_mm) and math.isfinite(d.lower_mm) and (nearest_ct := _list(d.nearest_ct))
    ]


def _plan(p: stream.PlanProgress) -> wire.PlanProgress:
    return wire.PlanProgress(
        trajectory=p.trajectory,
        entry_px=_list(p.entry_px),
        target_px=_list(p.target_px),
        angle_deg=_number(p.angle_deg),
        lateral_mm=_number(p.lateral_mm),
        depth_left_mm=_number(p.depth_left_mm),
        beside_mm=_list(p.lateral_offset_mm),
    )


def _outline(o: stream.Outline) -> wire.Outline:
    paths = [path for points in o.paths if (path := _path(points)) is not None]
    return wire.Outline(structure=o.structure, color=o.color, paths=paths)


def overlay_message(
    frame: FrameRecord,
    source: str,
    deadline_ms: float,
    dropped: Mapping[str, int],
    stages: Mapping[str, float],
    mode: Literal["live", "shadow"],
) -> wire.Overlay:
    """The overlay of a frame, but for ``t_sent`` and ``missed``, which are known when it leaves."""
    pose = _pose(frame.registration)
    return wire.Overlay(
        v=PROTOCOL_VERSION,
        source=source,
        seq=frame.seq,
        t_acq=frame.t_acq,
        t_recv=frame.t_recv,
        t_sent=0,
        deadline_ms=deadline_ms,
        missed=False,
        dropped=wire.Dropped(**dropped),
        stages={name: round(ms, 3) for name, ms in stages.items()},
        status=frame.status,
        registration=None if pose is None else wire.Registration(**pose),
        instruments=[_instrument(i) for i in frame.instruments],
        distances=_distances(frame.distances),
        plan=[_plan(p) for p in frame.plan],
        outlines=[_outline(o) for o in frame.outlines],
        models=frame.models,
        mode=mode,
        objects=[wire.ObjectRegistration(o.name, **own) for o in frame.objects if (own := _pose(o.registration))]
        if frame.objects
        else UNSET,
        look=_look(frame.look),
        breathing=_breathing(frame.breathing),
    )


def _breathing(breathing: Breathing | None) -> wire.Breathing | UnsetType:
    if breathing is None:
        return UNSET
    return wire.Breathing(
        state=breathing.state,
        of=breathing.of,
        amplitude_mm=_number(breathing.amplitude_mm),
        period_s=_number(breathing.period_s),
        phase=_number(breathing.phase),
        slip_mm=_bounded(breathing.slip_mm),
    )


def _look(look: Look | None) -> wire.Look | UnsetType:
    if look is None:
        return UNSET
    areas = [[round(edge, 1) for edge in area] for area in look.areas_px]
    return wire.Look(kind=look.kind, areas_px=areas, reason=look.reason)


def alert_message(alert: stream.Alert, source: str, instance: str, seq: int, t_acq: int) -> wire.Alert:
    """An alert, as of the frame that it goes with (0, 0 where there is none).

    `instance` tells one start of the pipeline from another: the alerts of one that has ended are of nothing any more.
    """
    return wire.Alert(
        v=PROTOCOL_VERSION,
        source=source,
        instance=instance,
        id=alert.id,
        seq=seq,
        t_acq=t_acq,
        t_raised=alert.t_raised,
        state=alert.state,
        priority=alert.priority,
        kind=alert.kind,  # pyright: ignore[reportArgumentType]
        instrument=alert.instrument,
        structure=alert.structure,
        distance_mm=_number(alert.distance_mm),
        lower_mm=_number(alert.lower_mm),
        threshold_mm=alert.threshold_mm,
        text=alert.text,
    )


def _latency(recent_ms: NDArray[np.float64]) -> wire.Latency:
    if not len(recent_ms):
        return wire.Latency(0.0, 0.0, 0.0)
    p50, p99 = np.percentile(recent_ms, [50, 99])
    return wire.Latency(float(p50), float(p99), float(recent_ms.max()))


def health_message(
    *,
    source: str,
    instance: str,
    state: str,
    reason: str,
    error: str,
    alerts: list[wire.Alert],
    rates: tuple[float, float],
    latencies_ms: NDArray[np.float64],
    totals: FrameTotals,
    tools_invalid: int,
    tools_skipped: int,
    tools_rejected: dict[str, int],
    keyframes: dict[str, int],
    looks: dict[str, int],
    witness: dict[str, int],
    breaths: dict[str, int],
    resting: dict[str, str],
    clock_offset_ms: float,
    engine: dict[str, str],
    case: str,
    case_name: str,
    loading: str,
    recording: str,
    mode: Literal["live", "shadow"],
    session: wire.SessionState,
    unauthenticated: bool,
) -> wire.Health:
    """The health message as of now.

    Parameters
    ----------
    alerts : list of wire.Alert
        All that are open.
    rates : tuple of float
        Frames received and overlays sent, per second.
    latencies_ms : ndarray, shape (n,)
        Exposure to overlay sent, of the last frames.
    totals : FrameTotals
        Frames since the start.

    Other parameters are the fields of :class:`fluoronav.wire.messages.Health`.
    """
    return wire.Health(
        v=PROTOCOL_VERSION,
        source=source,
        t=time.time_ns(),
        state=state,  # pyright: ignore[reportArgumentType]
        reason=reason,
        instance=instance,
        alerts=alerts,
        fps_in=rates[0],
        fps_out=rates[1],
        latency_ms=_latency(latencies_ms),
        frames=wire.FrameCounts(*(int(getattr(totals, name)) for name in wire.FrameCounts.__struct_fields__)),
        invalid_by_field=dict(totals.invalid_by_field),
        tools_invalid=tools_invalid,
        tools_skipped=tools_skipped,
        tools_rejected=tools_rejected,
        keyframes=keyframes or UNSET,
        looks=looks or UNSET,
        witness=witness or UNSET,
        breaths=breaths or UNSET,
        resting=resting or UNSET,
        clock_offset_ms=clock_offset_ms,
        engine=engine,
        case=case,
        case_name=case_name,
        loading=loading,
        recording=recording,
        mode=mode,
        session=session,
        unauthenticated=unauthenticated,
        version=__version__,
        error=error,
    )


def view_header(source: str, seq: int, t_acq: int, pixels: NDArray[np.uint8]) -> wire.ViewHeader:
    """The header of a picture for a display, shape (rows, cols)."""
    rows, cols = pixels.shape
    return wire.ViewHeader(
        v=PROTOCOL_VERSION, source=source, seq=seq, t_acq=t_acq, rows=rows, cols=cols, dtype="u1", bits=8,
        polarity="counts",
    )  # fmt: skip
