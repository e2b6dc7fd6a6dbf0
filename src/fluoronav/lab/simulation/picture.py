"""A frame with its overlay drawn on it, for reports."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
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

# Prefixes of structures that are bones.
_BONES = ("vertebra", "rib", "sacrum", "hip", "femur")
_OUTLINE_OPACITY = 0.7


@dataclass(frozen=True)
class WindowSettings:
    """How a frame becomes a grey image; chosen by eye on simulated frames. Lengths are pixels of a 1024 image."""

    field_side_px: int = 128  # of the reduced image in which the aperture is found
    edge_side_px: int = 512  # of the reduced image in which the field's edge is found
    least_bone: float = 0.0005  # fraction of the image below which the window is that of the whole field
    least_signal: float = 2e-3  # fraction of the brightest pixel, below which a signal is noise
    lit: float = 0.3  # fraction of the field's median from which a pixel belongs to the field
    quanta_px: float = 2.0  # sigma of the average over quanta
    filtered_quanta_px: float = 1.0  # the same after a temporal filter
    edge_radii_px: tuple[int, ...] = (4, 3)  # of the two guided filters
    edges: tuple[float, ...] = (0.3, 0.2)  # attenuation differences that each of them keeps
    fine_px: float = 3.0  # detail (endplates, pedicles, ribs) lies between this sigma ...
    detail_px: float = 28.0  # ... and this
    strength_px: float = 80.0  # sigma over which the strength of detail is averaged
    most_strength: float = 0.5  # attenuation; so that a wire does not weaken the bone around it
    least_strength: float = 0.3  # attenuation; so that noise is not amplified
    coarse_gain: float = 0.25
    detail_gain: float = 0.6
    percentiles: tuple[float, float] = (1, 98)  # of the evened attenuation: the window
    toe: float = 0.3  # fraction of the window into which values beyond either end are compressed


SETTINGS = WindowSettings()


def draw_overlay(counts: NDArray, overlay: dict[str, Any], before: Sequence[NDArray] = ()) -> NDArray[np.uint8]:
    """The frame with outlines, plan and instruments, beside a panel of numbers.

    Parameters
    ----------
    counts : ndarray, shape (rows, cols)
    overlay : dict
        As received.
    before : sequence of ndarray, shape (rows, cols)
        Earlier frames, oldest first, for the temporal filter of the display's enhanced image.

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
    """A frame in grey, bone dark, windowed for the outlined bones.

    The window is in attenuation, since a spine transmits a tenth of what lungs do. Detail is equalised, so that it is
    as strong behind the heart as elsewhere. Without an outlined bone the window is that of the whole field.

    Parameters
    ----------
    counts : ndarray, shape (rows, cols)
        Higher for more X-rays.
    outlines : sequence of dict
        Of an overlay: ``structure``, and ``paths`` in pixels.
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
    low, high = np.percentile(evened[under if under.mean() > SETTINGS.least_bone else field], SETTINGS.percentiles)
    level = (evened - np.float32(low)) / np.float32(max(high - low, 1e-6))
    within, toe = np.clip(level, 0, 1), SETTINGS.toe
    compressed = within + toe * np.tanh((level - within) / (2 * toe))
    return np.where(field, 255 * (1 - (compressed + toe) / (1 + 2 * toe)), 0).astype(np.uint8)


def _attenuation(counts: NDArray, before: Sequence[NDArray]) -> tuple[Float32, NDArray[np.bool_]]:
    """Denoised attenuation, up to a constant, and the field mask."""
    rows, cols = counts.shape
    scale = max(rows, cols) / 1024
    small, fine = (_shrunk(counts, side) for side in (SETTINGS.field_side_px, SETTINGS.edge_side_px))
    view = find_field_of_view(small)
    dark = dark_level(small, view.field_mask)
    reached = find_full_field_mask(view, fine)
    if reached.mean() < SETTINGS.least_bone:
        reached = np.ones(fine.shape, np.bool_)
    wide = cv2.resize(reached.astype(np.float32), (cols, rows), interpolation=cv2.INTER_LINEAR)
    field = np.asarray(wide > 0.5)
    filtered = _filtered(counts, before, dark, view.field_mask) if before else counts.astype(np.float32)
    width = scale * (SETTINGS.filtered_quanta_px if before else SETTINGS.quanta_px)
    signal = cv2.GaussianBlur(filtered - np.float32(dark), (0, 0), width)
    field |= signal > SETTINGS.lit * np.median(signal[field])
    least = max(float(signal[field].max()) * SETTINGS.least_signal, 1e-3)
    out = np.asarray(-np.log(np.maximum(signal, np.float32(least))), np.float32)
    # Outside the field its mean is set, or the field edge would dominate the filters near it.
    out = np.where(field, out, out[field].mean()).astype(np.float32)
    for radius, edge in zip(SETTINGS.edge_radii_px, SETTINGS.edges, strict=True):
        out = _smoothed(out, max(round(radius * scale), 1), edge)
    return out, field


def _filtered(counts: NDArray, before: Sequence[NDArray], dark: float, field_mask: NDArray[np.bool_]) -> Float32:
    """Counts after the filters of the display's enhanced image."""
    temporal, spatial = TemporalFilter(*counts.shape), LocalWiener(*counts.shape)
    stabilised = temporal(before[0], dark, field_mask)
    for frame in (*before[1:], counts):
        stabilised = temporal(frame, dark, field_mask)
    if temporal.model is None:  # the frames are too few or too flat for a noise model
        return counts.astype(np.float32)
    return temporal.model.counts(np.maximum(spatial(stabilised, temporal.worth), 0)).astype(np.float32)


def _evened(attenuation: Float32, field: NDArray[np.bool_], scale: float) -> Float32:
    """The image with equalised detail and weakened coarse structure."""
    inside = field.astype(np.float32)

    def mean(image: Float32, width_px: float) -> Float32:
        """Local mean over the field."""
        weight = np.maximum(cv2.GaussianBlur(inside, (0, 0), width_px * scale), np.float32(1e-3))
        return np.asarray(cv2.GaussianBlur(image * inside, (0, 0), width_px * scale) / weight, np.float32)

    middle, coarse = mean(attenuation, SETTINGS.fine_px), mean(attenuation, SETTINGS.detail_px)
    detail = middle - coarse
    strength = np.sqrt(mean(np.minimum(detail * detail, np.float32(SETTINGS.most_strength**2)), SETTINGS.strength_px))
    evened = detail / (strength + np.float32(SETTINGS.least_strength))
    return np.asarray(
        SETTINGS.coarse_gain * coarse + SETTINGS.detail_gain * evened + (attenuation - middle), np.float32
    )


def _shrunk(counts: NDArray, side: int) -> Float32:
    rows, cols = (max(round(n * side / max(counts.shape)), 1) for n in counts.shape)
    return np.asarray(cv2.resize(counts.astype(np.float32), (cols, rows), interpolation=cv2.INTER_AREA), np.float32)


def _smoothed(image: Float32, radius: int, edge: float) -> Float32:
    """The guided filter; it keeps steps larger than `edge` (He, Sun and Tang, IEEE PAMI 35, 2013)."""
    size = (2 * radius + 1, 2 * radius + 1)
    mean, square = cv2.blur(image, size), cv2.blur(image * image, size)
    variance = np.maximum(square - mean * mean, 0)
    slope = variance / (variance + np.float32(edge**2))
    return np.asarray(cv2.blur(slope, size) * image + cv2.blur((1 - slope) * mean, size), np.float32)


class _Panel:
    """Lines of text beside the frame."""

    def __init__(self, rows: int) -> None:
        self.image = np.full((rows, 430, 3), 24, np.uint8)
        self._y = 50

    def line(self, text: str, color=_WHITE, scale: float = 0.62, thick: int = 1, step: int = 30) -> None:
        cv2.putText(self.image, text, (18, self._y), cv2.FONT_HERSHEY_SIMPLEX, scale, color, thick, cv2.LINE_AA)
        self._y += step

    def key(self, text: str, color) -> None:
        """A line of the legend."""
        cv2.circle(self.image, (26, self._y - 6), 7, color, -1, cv2.LINE_AA)
        cv2.putText(self.image, text, (44, self._y), cv2.FONT_HERSHEY_SIMPLEX, 0.55, _WHITE, 1, cv2.LINE_AA)
        self._y += 25


def _panel(rows: int, overlay: dict[str, Any]) -> NDArray[np.uint8]:
    panel = _Panel(rows)
    line = panel.line
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
        panel.key(outline["structure"].replace("_", " "), _bgr(outline["color"]))
    return panel.image


def _bgr(color: str) -> tuple[int, int, int]:
    return int(color[5:7], 16), int(color[3:5], 16), int(color[1:3], 16)


def _poly(image: NDArray, points, color, thick: int, *, closed: bool = False) -> None:
    fixed = np.rint(np.clip(np.array(points), -4000, 4000) * 16).astype(np.int32)
    cv2.polylines(image, [fixed[:, None]], closed, color, thick, cv2.LINE_AA, 4)


def _circle(image: NDArray, centre, radius: int, color) -> None:
    cv2.circle(image, (round(centre[0]), round(centre[1])), radius, color, 2, cv2.LINE_AA)
