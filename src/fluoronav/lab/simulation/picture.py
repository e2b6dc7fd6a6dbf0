"""One frame with its overlay drawn on it, for reports: what a display would show."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from fluoronav.imaging.xray.field_edge import find_full_field_mask
from fluoronav.imaging.xray.field_of_view import dark_level, find_field_of_view
from fluoronav.imaging.xray.spatial_filter import LocalWiener
from fluoronav.imaging.xray.temporal_filter import TemporalFilter

Float32 = NDArray[np.float32]

_LEVEL = {"clear": (120, 220, 120), "caution": (60, 200, 255), "danger": (80, 80, 255)}
_STATUS = {"tracking": "clear", "degraded": "caution", "settling": "caution", "searching": "caution"}
_WHITE = (235, 235, 235)

# Bones, as outlines are named.
_BONES = ("vertebra", "rib", "sacrum", "hip", "femur")
_FIELD_SIDE, _RIM_SIDE = 128, 512  # pixels of the small images in which the field and its rim are found
_LEAST_SHARE = 0.0005  # of the image: less bone in the field is too little to take a window from
_LEAST_SIGNAL = 2e-3  # of the brightest: less is noise
_LIT = 0.3  # of the field's median: as bright is field, too
# Lengths in pixels of a 1024 image: quanta are averaged over the first, or over the second after a filter over time.
_QUANTA_PX, _FILTERED_QUANTA_PX = 2.0, 1.0
_EDGE_RADII_PX = (4, 3)  # of the filters that keep edges
_EDGES = (0.3, 0.2)  # differences of attenuation that are edges, for each of them
_FINE_PX, _DETAIL_PX = 3.0, 28.0  # detail lies between: endplates, pedicles, ribs
_STRENGTH_PX = 80.0  # the strength of detail is taken over so much
_MOST_STRENGTH = 0.5  # attenuation: a wire must not weaken the bone about it
_LEAST_STRENGTH = 0.3  # attenuation: noise must not be made strong
_COARSE_SHARE, _DETAIL_GAIN = 0.25, 0.6
_WINDOW_PERCENTILES = (1, 98)
_TOE = 0.3  # what lies outside the window is bent into this share of it, at either end
_OUTLINE_OPACITY = 0.7


def draw_overlay(counts: NDArray, overlay: dict[str, Any], before: Sequence[NDArray] = ()) -> NDArray[np.uint8]:
    """The frame with outlines, plan, instrument and the numbers that matter.

    Parameters
    ----------
    counts : ndarray, shape (rows, cols)
    overlay : dict
        As received.
    before : sequence of ndarray, shape (rows, cols)
        The frames before it, oldest first: it is filtered over time, as the display's enhanced picture is.

    Returns
    -------
    ndarray of uint8, shape (rows, cols + panel, 3)
        BGR.
    """
    image = cv2.cvtColor(windowed(counts, overlay["outlines"], before), cv2.COLOR_GRAY2BGR)
    drawn = image.copy()
    for outline in overlay["outlines"]:
        color = _bgr(outline["color"])
        for path in outline["paths"]:
            _poly(drawn, path, color, 2, closed=True)
    image = np.asarray(cv2.addWeighted(drawn, _OUTLINE_OPACITY, image, 1 - _OUTLINE_OPACITY, 0), np.uint8)
    for plan in overlay["plan"]:
        if plan["entry_px"] and plan["target_px"]:
            _poly(image, [plan["entry_px"], plan["target_px"]], (255, 255, 120), 2)
            _circle(image, plan["target_px"], 9, (255, 255, 120))
    for tool in overlay["instruments"]:
        if tool["tip_px"] and tool["tail_px"]:
            _poly(image, tool.get("shaft_px") or [tool["tip_px"], tool["tail_px"]], (200, 120, 255), 2)
            _circle(image, tool["tip_px"], 6, (200, 120, 255))
    return np.hstack([image, _panel(image.shape[0], overlay)])


def windowed(
    counts: NDArray, outlines: Sequence[dict[str, Any]], before: Sequence[NDArray] = ()
) -> NDArray[np.uint8]:  # fmt: skip
    """A frame in grey, bone dark, in a window that is taken from what lies under the outlined bones.

    The window is one of attenuation, since a spine lets through a tenth of what lungs do, and detail is made as strong
    behind the heart as beside it. Without an outlined bone in the field the window is that of the whole field.

    Parameters
    ----------
    counts : ndarray, shape (rows, cols)
        More for more X-rays.
    outlines : sequence of dict
        Of an overlay: ``structure`` and ``paths``, pixels.
    before : sequence of ndarray, shape (rows, cols)
        As of :func:`draw_overlay`.

    Returns
    -------
    ndarray of uint8, shape (rows, cols)
        Black outside the field.
    """
    attenuation, field = _attenuation(counts, before)
    evened = _evened(attenuation, field, max(counts.shape) / 1024)
    bones = np.zeros(counts.shape, np.uint8)
    for outline in outlines:
        if outline["structure"].startswith(_BONES):
            for path in outline["paths"]:
                cv2.fillPoly(bones, [np.rint(np.clip(np.array(path), -4000, 4000)).astype(np.int32)], 1)
    under = (bones > 0) & field
    low, high = np.percentile(evened[under if under.mean() > _LEAST_SHARE else field], _WINDOW_PERCENTILES)
    share = (evened - np.float32(low)) / np.float32(max(high - low, 1e-6))
    within = np.clip(share, 0, 1)
    bent = within + _TOE * np.tanh((share - within) / (2 * _TOE))
    return np.where(field, 255 * (1 - (bent + _TOE) / (1 + 2 * _TOE)), 0).astype(np.uint8)


def _attenuation(counts: NDArray, before: Sequence[NDArray]) -> tuple[Float32, NDArray[np.bool_]]:
    """Minus the logarithm of what arrives, with fewer quanta's noise, to a constant; and the field."""
    rows, cols = counts.shape
    scale = max(rows, cols) / 1024
    small, fine = (_shrunk(counts, side) for side in (_FIELD_SIDE, _RIM_SIDE))
    view = find_field_of_view(small)
    dark = dark_level(small, view.field_mask)
    reached = find_full_field_mask(view, fine)
    if reached.mean() < _LEAST_SHARE:
        reached = np.ones(fine.shape, np.bool_)
    wide = cv2.resize(reached.astype(np.float32), (cols, rows), interpolation=cv2.INTER_LINEAR)
    field = np.asarray(wide > 0.5)
    filtered = _filtered(counts, before, dark, view.field_mask) if before else counts.astype(np.float32)
    width = scale * (_FILTERED_QUANTA_PX if before else _QUANTA_PX)
    signal = cv2.GaussianBlur(filtered - np.float32(dark), (0, 0), width)
    field |= signal > _LIT * np.median(signal[field])
    least = max(float(signal[field].max()) * _LEAST_SIGNAL, 1e-3)
    out = np.asarray(-np.log(np.maximum(signal, np.float32(least))), np.float32)
    # Outside the field its mean stands, or the rim would rule the filters near it.
    out = np.where(field, out, out[field].mean()).astype(np.float32)
    for radius, edge in zip(_EDGE_RADII_PX, _EDGES, strict=True):
        out = _smoothed(out, max(round(radius * scale), 1), edge)
    return out, field


def _filtered(counts: NDArray, before: Sequence[NDArray], dark: float, field_mask: NDArray[np.bool_]) -> Float32:
    """Counts after the filters of the display's enhanced picture."""
    temporal, spatial = TemporalFilter(*counts.shape), LocalWiener(*counts.shape)
    stabilised = temporal(before[0], dark, field_mask)
    for frame in (*before[1:], counts):
        stabilised = temporal(frame, dark, field_mask)
    if temporal.model is None:  # the frames are too few or too flat to tell
        return counts.astype(np.float32)
    return temporal.model.counts(np.maximum(spatial(stabilised, temporal.worth), 0)).astype(np.float32)


def _evened(attenuation: Float32, field: NDArray[np.bool_], scale: float) -> Float32:
    """Detail as strong behind the heart as beside it, and little of what is coarser."""
    inside = field.astype(np.float32)

    def mean(image: Float32, width_px: float) -> Float32:
        """The mean around each pixel of what lies in the field."""
        weight = np.maximum(cv2.GaussianBlur(inside, (0, 0), width_px * scale), np.float32(1e-3))
        return np.asarray(cv2.GaussianBlur(image * inside, (0, 0), width_px * scale) / weight, np.float32)

    middle, coarse = mean(attenuation, _FINE_PX), mean(attenuation, _DETAIL_PX)
    detail = middle - coarse
    strength = np.sqrt(mean(np.minimum(detail * detail, np.float32(_MOST_STRENGTH**2)), _STRENGTH_PX))
    evened = detail / (strength + np.float32(_LEAST_STRENGTH))
    return np.asarray(_COARSE_SHARE * coarse + _DETAIL_GAIN * evened + (attenuation - middle), np.float32)


def _shrunk(counts: NDArray, side: int) -> Float32:
    rows, cols = (max(round(n * side / max(counts.shape)), 1) for n in counts.shape)
    return np.asarray(cv2.resize(counts.astype(np.float32), (cols, rows), interpolation=cv2.INTER_AREA), np.float32)


def _smoothed(image: Float32, radius: int, edge: float) -> Float32:
    """The guided filter, which keeps steps larger than `edge` (He, Sun and Tang, IEEE PAMI 35, 2013)."""
    size = (2 * radius + 1, 2 * radius + 1)
    mean, square = cv2.blur(image, size), cv2.blur(image * image, size)
    variance = np.maximum(square - mean * mean, 0)
    slope = variance / (variance + np.float32(edge**2))
    return np.asarray(cv2.blur(slope, size) * image + cv2.blur((1 - slope) * mean, size), np.float32)


def _panel(rows: int, overlay: dict[str, Any]) -> NDArray[np.uint8]:
    panel = np.full((rows, 430, 3), 24, np.uint8)
    y = 50

    def line(text: str, color=_WHITE, scale: float = 0.62, thick: int = 1, step: int = 30) -> None:
        nonlocal y
        cv2.putText(panel, text, (18, y), cv2.FONT_HERSHEY_SIMPLEX, scale, color, thick, cv2.LINE_AA)
        y += step

    line(overlay["status"].upper(), _LEVEL[_STATUS.get(overlay["status"], "danger")], 1.0, 2, 40)
    if overlay.get("mode") == "shadow":
        line("shadow mode: it only watches", _LEVEL["caution"], step=26)
    r = overlay["registration"]
    if not r:
        line("no pose: nothing is projected", _LEVEL["caution"], step=44)
    else:
        if r.get("age_ms"):
            line(f"pose measured {r['age_ms']:.0f} ms ago", step=26)
        line(f"95 % error {r['tre_image_mm']:.1f} mm in the image", step=26)
        line(f"{r['tre_mm']:.1f} mm in space, score {r['score']:.2f}", step=44)
    for d in overlay["distances"]:
        line(d["structure"].replace("_", " "), _LEVEL[d["level"]], 0.75, 2)
        line(f"{d['distance_mm']:.1f} mm (at least {d['lower_mm']:.1f})", _LEVEL[d["level"]], 0.9, 2, 46)
    for p in overlay["plan"]:
        if p["angle_deg"] is not None:
            line(p["trajectory"].replace("_", " "), (255, 255, 120), 0.75, 2)
            line(f"{p['lateral_mm']:.1f} mm aside, {p['angle_deg']:.1f} degrees", step=26)
            line(f"{p['depth_left_mm']:.1f} mm to the target", step=44)
    late = overlay["missed"]
    after = f"frame {overlay['seq']}, {(overlay['t_sent'] - overlay['t_acq']) / 1e6:.1f} ms after exposure"
    line(after + (": late" if late else ""), _LEVEL["caution"] if late else _WHITE, step=44)
    for outline in overlay["outlines"]:
        cv2.circle(panel, (26, y - 6), 7, _bgr(outline["color"]), -1, cv2.LINE_AA)
        cv2.putText(
            panel,
            outline["structure"].replace("_", " "),
            (44, y),
            cv2.FONT_HERSHEY_SIMPLEX,
            0.55,
            _WHITE,
            1,
            cv2.LINE_AA,
        )
        y += 25
    return panel


def _bgr(color: str) -> tuple[int, int, int]:
    return int(color[5:7], 16), int(color[3:5], 16), int(color[1:3], 16)


def _poly(image: NDArray, points, color, thick: int, *, closed: bool = False) -> None:
    fixed = np.rint(np.clip(np.array(points), -4000, 4000) * 16).astype(np.int32)
    cv2.polylines(image, [fixed[:, None]], closed, color, thick, cv2.LINE_AA, 4)


def _circle(image: NDArray, centre, radius: int, color) -> None:
    cv2.circle(image, (round(centre[0]), round(centre[1])), radius, color, 2, cv2.LINE_AA)
