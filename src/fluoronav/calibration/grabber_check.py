"""What a vendor has to mend in a frame grabber, in words."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from fluoronav.calibration.grabber_stream import HeardFrames
from fluoronav.geometry import Camera
from fluoronav.imaging.xray.polarity import polarity_of_image
from fluoronav.stream.pipeline.calibration_check import CalibrationCheck
from fluoronav.wire.values import PROTOCOL_VERSION


@dataclass(frozen=True, slots=True)
class GrabberLimits:
    """From where on something has to be mended.

    Attributes
    ----------
    least_frames : int
        Fewer say nothing of times; chosen.
    filled : float
        A range of values is one whose upper end is reached, where the brightest pixel has this part of it. Chosen.
    ahead_ms : float
        Times ahead of this computer's clock by more are refused; `max_future_ms` of the launch file.
    behind_ms : float
        As `LIMITS.clock_late_ms` of `health`: later frames are late, or have another clock.
    drift_ms_s : float
        Change of the delay, ms a second. Chosen: 5 ms over the five seconds of a check are beyond its noise.
    late_spread_ms : float
        Range of the delays, without the largest and smallest twentieth: a frame's period at 30 a second.
    most_fps : float
        More frames than the pipeline believes (`docs/wire-protocol.md`).
    silence_s : float
        After so long a grabber may begin again with other numbers (`docs/wire-protocol.md`).
    """

    least_frames: int = 10
    filled: float = 0.9
    ahead_ms: float = 100.0
    behind_ms: float = 40.0
    drift_ms_s: float = 1.0
    late_spread_ms: float = 33.0
    most_fps: float = 240.0
    silence_s: float = 0.5


LIMITS = GrabberLimits()


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Attributes
    ----------
    about : str
    verdict : {"ok", "mend", "look", "not_checked"}
        `look`: a person should decide whether it is as meant.
    text : str
        What was seen, and what to do.
    """

    about: str
    verdict: Literal["ok", "mend", "look", "not_checked"]
    text: str


def check_frames(heard: HeardFrames, endpoint: str, camera: Camera) -> list[Finding]:
    """What can be said of a grabber by its messages.

    Parameters
    ----------
    heard : HeardFrames
    endpoint : str
    camera : Camera
        What the frames are calibrated with.
    """
    if not heard.headers:
        return [_nothing(heard, endpoint), *_invalid(heard)]
    checks: tuple[Callable[[HeardFrames], Iterator[Finding]], ...] = (_bits, _polarity, _numbers, _clock, _pace)
    findings = [*_invalid(heard), *_sources(heard), *_size(heard, camera)]
    for check in checks:
        findings += check(heard)
    return findings


def has_to_be_mended(findings: list[Finding]) -> bool:
    return any(f.verdict == "mend" for f in findings)


def as_json(findings: list[Finding], heard: HeardFrames) -> dict[str, Any]:
    """What was found, for machines."""
    return {
        "mend": has_to_be_mended(findings),
        "frames": len(heard.headers),
        "invalid": dict(heard.invalid),
        "seconds": round(heard.seconds, 2),
        "findings": [asdict(f) for f in findings],
    }


def _nothing(heard: HeardFrames, endpoint: str) -> Finding:
    if heard.invalid:
        return Finding("frames", "mend", "no message was a valid frame")
    if heard.others:
        return Finding("frames", "mend", "no frame of the first source came")
    if not heard.answers:
        text = "nothing listens there: the grabber's PUB socket has to bind it, on the address of this network"
        return Finding("frames", "mend", f"{endpoint}: {text}")
    return Finding(
        "frames", "mend",
        f"{endpoint}: something listens there, but in {heard.seconds:.0f} s no frame came. Does it send topics that "
        "begin with `frame/`, on a PUB socket, in three parts? Are X-rays on? A frame that is sent before a subscriber "
        "has joined (0.1 s or more after bind) is lost",
    )  # fmt: skip


def _invalid(heard: HeardFrames) -> Iterator[Finding]:
    for text, n in heard.invalid.most_common(5):
        about = "wire version" if text.startswith("v:") else "message"
        do = f"; this is version {PROTOCOL_VERSION} of docs/wire-protocol.md" if about == "wire version" else ""
        yield Finding(about, "mend", f"{n} messages are invalid: {text}{do}")
    if heard.headers:
        yield Finding("wire version", "ok", f"{PROTOCOL_VERSION}, {len(heard.headers)} valid frames")


def _sources(heard: HeardFrames) -> Iterator[Finding]:
    name = heard.headers[0].source
    if heard.others:
        others = ", ".join(sorted(heard.others))
        yield Finding(
            "source", "look", f"this is of {name}; {others} sends here, too: the launch file names one `source`"
        )
    else:
        yield Finding("source", "ok", f"{name}; the launch file's `source` has to be the same")


def _size(heard: HeardFrames, camera: Camera) -> Iterator[Finding]:
    sizes = {(h.cols, h.rows) for h in heard.headers}
    said = ", ".join(f"{cols} x {rows}" for cols, rows in sorted(sizes))
    asked = f"{camera.cols} x {camera.rows}"
    if len(sizes) > 1:
        yield Finding("size", "mend", f"frames of {said} came: one stream has one size; {camera.name} says {asked}")
    elif sizes != {(camera.cols, camera.rows)}:
        cols, rows = next(iter(sizes))
        turned = " (columns and rows are exchanged)" if (rows, cols) == (camera.cols, camera.rows) else ""
        yield Finding(
            "size", "mend",
            f"frames have {said} pixels, {camera.name} says {asked}{turned}: every frame is refused. Send that size, "
            "or give a camera file of this one",
        )  # fmt: skip
    else:
        yield Finding("size", "ok", f"{said}, as {camera.name} says")
    focal = float(camera.K[0, 0]), float(camera.K[1, 1])
    fault = CalibrationCheck(focal, camera.sdd_mm, camera.names, camera.name).fault(heard.headers[-1])
    if fault is not None:
        yield Finding("geometry", "mend", fault)
    elif heard.headers[-1].sdd_mm is None or heard.headers[-1].pixel_mm is None:
        yield Finding(
            "geometry",
            "look",
            "frames do not say `sdd_mm` and `pixel_mm`: a zoom cannot be noticed; send both if you can",
        )
    else:
        yield Finding("geometry", "ok", "`sdd_mm` and `pixel_mm` fit the camera file's focal length")


def _bits(heard: HeardFrames) -> Iterator[Finding]:
    head = heard.headers[-1]
    said, used = head.bits, heard.used_bits
    holds = 8 if head.dtype == "u1" else 16
    needed = used.bit_length()
    empty = (used & -used).bit_length() - 1 if used else 0
    brightest = max(int(p.max()) for p in heard.pictures)
    if used == 0:
        yield Finding("bits", "mend", "every pixel is 0")
    elif needed > said:
        shift = f"shift right by {empty}, since the lowest {empty} are always 0 (left-aligned), or "
        do = (shift if empty and needed - empty <= said else "") + f"say `bits` {needed}"
        text = f"`bits` is {said}, but pixels have up to {brightest}, which takes {needed}: {do}"
        yield Finding("bits", "mend", text)
    elif empty and needed == said:
        yield Finding(
            "bits", "ok",
            f"{said}; the lowest {empty} are always 0, as a detector of {said - empty} bits has them when its values "
            "stand at the top (left-aligned), which is right",
        )  # fmt: skip
    elif needed < said and brightest >= LIMITS.filled * (2**needed - 1) and needed >= 8:
        yield Finding(
            "bits", "mend",
            f"`bits` is {said}, but no pixel is above {brightest}: a detector of {needed} bits whose values stand at "
            f"the bottom (right-aligned) has to say `bits` {needed}. If the picture is only dark, expose more",
        )  # fmt: skip
    else:
        yield Finding("bits", "ok", f"{said} of {holds}, brightest pixel {brightest}")


def _polarity(heard: HeardFrames) -> Iterator[Finding]:
    said = heard.headers[-1].polarity or "counts"
    full = float(2 ** heard.headers[-1].bits - 1)
    shown = {polarity_of_image(p.astype(np.float32), full) for p in heard.pictures} - {None}
    if shown == {said}:
        yield Finding("polarity", "ok", f"{said}: outside the round field no X-rays arrive")
    elif len(shown) == 1:
        (other,) = shown
        yield Finding(
            "polarity", "mend", f"frames say {said}, but the picture has its round field as {other}: say that"
        )
    else:
        yield Finding(
            "polarity", "look", f"frames say {said}: air has to be {'bright' if said == 'counts' else 'dark'}"
        )


def _numbers(heard: HeardFrames) -> Iterator[Finding]:
    seq = np.array([h.seq for h in heard.headers])
    steps = np.diff(seq)
    if len(steps) == 0:
        return
    lost, gaps = int((steps[steps > 1] - 1).sum()), int((steps > 1).sum())
    if (steps == 0).any():
        text = f"{int((steps == 0).sum())} frames have the number of the frame before: `seq` goes up by 1 an exposure"
        yield Finding("seq", "mend", text)
    if (steps < 0).any():
        yield from _restarts(heard, np.flatnonzero(steps < 0))
    if gaps:
        every = steps[0] if (steps == steps[0]).all() else 0
        hint = f"it goes up by {every} each time: count exposures" if every else (
            "frames are lost between the grabber and here: set ZMQ_SNDHWM to 8 or more and ZMQ_SNDBUF to a frame's "
            "size or more on the PUB socket before bind, and look at the network"
        )  # fmt: skip
        yield Finding("seq", "mend", f"{gaps} gaps, {lost} frames missing of {int(seq[-1] - seq[0]) + 1}: {hint}")
    if (steps == 1).all():
        yield Finding("seq", "ok", f"{seq[0]} to {seq[-1]} without a gap; it may begin anywhere after a restart")


def _restarts(heard: HeardFrames, at: np.ndarray) -> Iterator[Finding]:
    for k in at[:1]:
        before, after = heard.headers[k], heard.headers[k + 1]
        silent_s = (heard.t_recv[k + 1] - heard.t_recv[k]) / 1e9
        if after.t_acq <= before.t_acq:
            text = "`t_acq` went back with it: after a restart times have to go on"
            yield Finding("seq", "mend", f"{before.seq} was followed by {after.seq}, and {text}")
        elif silent_s < LIMITS.silence_s:
            yield Finding(
                "seq", "mend",
                f"{before.seq} was followed by {after.seq} after {silent_s:.2f} s: the pipeline refuses ten frames "
                f"before it believes that. After a restart be silent for {LIMITS.silence_s:g} s, or count on",
            )  # fmt: skip
        else:
            yield Finding("seq", "ok", f"began again at {after.seq} after {silent_s:.1f} s of silence: believed")


def _clock(heard: HeardFrames) -> Iterator[Finding]:
    t_acq, t_recv = np.array([h.t_acq for h in heard.headers]), np.array(heard.t_recv)
    if len(t_acq) < LIMITS.least_frames:
        yield Finding("clock", "not_checked", f"only {len(t_acq)} frames came")
        return
    if (np.diff(t_acq) <= 0).any():
        text = "`t_acq` does not go up with each frame: it is the middle of the exposure, ns since 1970, UTC"
        yield Finding("clock", "mend", text)
        return
    delay_ms = (t_recv - t_acq) / 1e6
    typical, least = float(np.median(delay_ms)), float(delay_ms.min())
    # The shortest delays at the beginning and at the end: others are those of a busy computer.
    third = len(t_acq) // 3
    drift_ms_s = float(delay_ms[-third:].min() - delay_ms[:third].min()) / ((t_recv[-third] - t_recv[0]) / 1e9)
    do = "synchronise both computers with PTP (or chrony), and send the middle of the exposure in ns since 1970, UTC"
    if least < -LIMITS.ahead_ms:
        text = f"frames are dated {-least:.0f} ms into the future and are refused"
        yield Finding("clock", "mend", f"{text}: {do}")
    elif typical > LIMITS.behind_ms:
        yield Finding("clock", "mend", f"frames arrive {typical:.0f} ms after their `t_acq`: they are late, or {do}")
    else:
        yield Finding("clock", "ok", f"frames arrive {typical:.1f} ms after their `t_acq` (median)")
    if abs(drift_ms_s) > LIMITS.drift_ms_s:
        yield Finding(
            "drift", "mend", f"the delay changes by {drift_ms_s:+.1f} ms a second: the clocks run apart: {do}"
        )
    else:
        yield Finding("drift", "ok", f"{drift_ms_s:+.2f} ms a second")


def _pace(heard: HeardFrames) -> Iterator[Finding]:
    t_acq, t_recv = np.array([h.t_acq for h in heard.headers]), np.array(heard.t_recv)
    if len(t_acq) < LIMITS.least_frames:
        return
    fps = 1e9 / float(np.median(np.diff(t_acq)).clip(1))
    low, high = np.percentile((t_recv - t_acq) / 1e6, [5, 95])
    if fps > LIMITS.most_fps:
        yield Finding(
            "pace", "mend", f"`t_acq` tells {fps:.0f} frames a second; {LIMITS.most_fps:g} are believed at most"
        )
    elif high - low > LIMITS.late_spread_ms:
        yield Finding(
            "pace", "mend",
            f"{fps:.1f} frames a second, but they arrive in bursts (delays of {low:.0f} to {high:.0f} ms): send each "
            "at once, with ZMQ_SNDBUF of a frame's size or more; do not queue",
        )  # fmt: skip
    else:
        yield Finding("pace", "ok", f"{fps:.1f} frames a second, delays within {high - low:.0f} ms")
    if heard.repeated:
        yield Finding(
            "picture", "look",
            f"{heard.repeated} of {len(heard.headers)} frames have the very pixels of the frame before: the pipeline "
            "calls that a picture that is not live. Send a frame for an exposure, not for a refresh of a screen",
        )  # fmt: skip
