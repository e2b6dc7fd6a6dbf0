"""One frame with its overlay drawn on it, for reports: what a display would show."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

_LEVEL = {"clear": (120, 220, 120), "caution": (60, 200, 255), "danger": (80, 80, 255)}
_WHITE = (235, 235, 235)


def draw_overlay(counts: NDArray, overlay: dict[str, Any]) -> NDArray[np.uint8]:
    """The frame with outlines, plan, instrument and the numbers that matter.

    Parameters
    ----------
    counts : ndarray, shape (rows, cols)
    overlay : dict
        As received.

    Returns
    -------
    ndarray of uint8, shape (rows, cols + panel, 3)
        BGR.
    """
    logarithm = np.log(counts.astype(np.float32) + 200)
    low, high = np.percentile(logarithm[counts > np.percentile(counts, 25)], [1, 99.5])
    grey = np.clip((logarithm - low) / (high - low) * 235, 0, 255).astype(np.uint8)
    # Local contrast: the spine lies ten times darker than the lungs.
    grey = cv2.createCLAHE(clipLimit=4.0, tileGridSize=(6, 6)).apply(cv2.GaussianBlur(grey, (0, 0), 1.2))
    image = cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR)
    for outline in overlay["outlines"]:
        color = _bgr(outline["color"])
        for path in outline["paths"]:
            _poly(image, path, color, 2, closed=True)
    for plan in overlay["plan"]:
        if plan["entry_px"] and plan["target_px"]:
            _poly(image, [plan["entry_px"], plan["target_px"]], (255, 255, 120), 2)
            _circle(image, plan["target_px"], 9, (255, 255, 120))
    for tool in overlay["instruments"]:
        if tool["tip_px"] and tool["tail_px"]:
            _poly(image, tool.get("shaft_px") or [tool["tip_px"], tool["tail_px"]], (200, 120, 255), 2)
            _circle(image, tool["tip_px"], 6, (200, 120, 255))
    return np.hstack([image, _panel(image.shape[0], overlay)])


def _panel(rows: int, overlay: dict[str, Any]) -> NDArray[np.uint8]:
    panel = np.full((rows, 430, 3), 24, np.uint8)
    y = 50

    def line(text: str, color=_WHITE, scale: float = 0.62, thick: int = 1, step: int = 30) -> None:
        nonlocal y
        cv2.putText(panel, text, (18, y), cv2.FONT_HERSHEY_SIMPLEX, scale, color, thick, cv2.LINE_AA)
        y += step

    good = overlay["status"] == "tracking"
    line(overlay["status"].upper(), _LEVEL["clear"] if good else _LEVEL["danger"], 1.0, 2, 40)
    r = overlay["registration"]
    if r:
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
    line(f"frame {overlay['seq']}, {(overlay['t_sent'] - overlay['t_acq']) / 1e6:.1f} ms after exposure", step=44)
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
