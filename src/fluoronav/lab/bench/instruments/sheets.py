"""Sheets of exposures with their detections, for people."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from fluoronav.lab.simulation.instrument_scenes import Placed
from fluoronav.stream.frame import Detection

Float = NDArray[np.float64]

_PER_DOSE = 4  # images on a sheet; chosen
_SIDE_PX = 420  # of an image; chosen


@dataclass
class Sheets:
    """Exposures with all instruments found, and with errors, as images for people."""

    right: list[NDArray[np.uint8]] = field(default_factory=list)
    missed: list[NDArray[np.uint8]] = field(default_factory=list)
    false: list[NDArray[np.uint8]] = field(default_factory=list)

    def add(self, counts: NDArray[np.uint16], found: list[Detection], placed: tuple[Placed, ...], kind: str) -> None:
        sheet = getattr(self, kind)
        if len(sheet) < _PER_DOSE:
            sheet.append(_small(drawn_frame(counts, found, placed)))

    def wrong(self) -> list[NDArray[np.uint8]]:
        """Half of them false detections, which are rarer than missed instruments and tell more."""
        half = _PER_DOSE // 2
        return [*self.false[:half], *self.missed, *self.false[half:]][:_PER_DOSE]


def write_sheet(path: Path, images: list[NDArray[np.uint8]]) -> None:
    """Writes images in rows of four; no file without images."""
    if images:
        path.parent.mkdir(parents=True, exist_ok=True)
        images = images + [np.zeros_like(images[0])] * (-len(images) % 4)
        rows_of_4 = [np.hstack(images[k : k + 4]) for k in range(0, len(images), 4)]
        cv2.imwrite(str(path), np.vstack(rows_of_4), [cv2.IMWRITE_JPEG_QUALITY, 85])


def drawn_frame(counts: NDArray[np.uint16], found: list[Detection], placed: tuple[Placed, ...]) -> NDArray[np.uint8]:
    """A frame with its detections (yellow: axis, tip and kind) and its instruments' tips (red)."""
    shown = np.log(np.maximum(counts.astype(np.float64), 1))
    low, high = np.percentile(shown, [5, 99.5])
    grey = np.clip(255 * (shown - low) / max(high - low, 1e-6), 0, 255).astype(np.uint8)
    image = cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR)
    for p in placed:
        cv2.drawMarker(image, _at(p.axis_px[0]), (60, 60, 255), cv2.MARKER_TILTED_CROSS, 34, 2, cv2.LINE_AA)
    for d in found:
        cv2.line(image, _at(d.tip_px), _at(d.tip_px - 160 * d.direction), (60, 220, 255), 2, cv2.LINE_AA)
        cv2.circle(image, _at(d.tip_px), 12, (60, 220, 255), 2, cv2.LINE_AA)
        at = _at(d.tip_px + [18, -12])
        cv2.putText(image, f"{d.kind} {d.score:.2f}", at, cv2.FONT_HERSHEY_SIMPLEX, 1.1, (60, 220, 255), 2, cv2.LINE_AA)
    return np.asarray(image, dtype=np.uint8)


def _small(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.asarray(cv2.resize(image, (_SIDE_PX, _SIDE_PX), interpolation=cv2.INTER_AREA), dtype=np.uint8)


def _at(uv: Float) -> tuple[int, int]:
    x, y = np.rint(uv).astype(int).tolist()
    return x, y
