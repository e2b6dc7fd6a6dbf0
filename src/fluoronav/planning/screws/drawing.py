"""Pictures of screws: three cuts through the axis of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import cv2
import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from fluoronav.planning.plan.schema import Side
from fluoronav.planning.screws.vertebra import Vertebra

Float = NDArray[np.float64]
Picture = NDArray[np.uint8]

_SIDE_MM, _PIXEL_MM = 80.0, 0.25  # of a cut; chosen: a lumbar vertebra from behind to front
_WINDOW_HU = (-200.0, 1000.0)  # chosen: bone
_COLOURS = {"A": (90, 200, 90), "B": (60, 200, 230), "C": (40, 130, 240), "D": (60, 60, 230), "E": (40, 40, 200)}  # BGR
_BONE = (235, 170, 90)
_TITLE_PX = 26


class Drawn(Protocol):
    """What is drawn: a screw of a plan, or a proposal."""

    level: str
    side: Side
    entry_ct: tuple[float, float, float]
    tip_ct: tuple[float, float, float]
    diameter_mm: float
    length_mm: float
    clearance_mm: float
    grade: str


@dataclass(frozen=True)
class Cut:
    """A plane through a screw's axis.

    Attributes
    ----------
    name : str
    centre_ct, right_ct, down_ct : ndarray, shape (3,)
        Middle of the picture (LPS mm), and unit vectors along its columns and rows.
    """

    name: str
    centre_ct: Float
    right_ct: Float
    down_ct: Float

    def points_ct(self) -> Float:
        """Points of all pixels, LPS mm, shape (n, n, 3)."""
        n = int(_SIDE_MM / _PIXEL_MM)
        at = (np.arange(n) - (n - 1) / 2) * _PIXEL_MM
        return self.centre_ct + at[None, :, None] * self.right_ct + at[:, None, None] * self.down_ct

    def pixel(self, point_ct: Float) -> Float:
        """Column and row of a point's projection on the plane."""
        off = np.asarray(point_ct, np.float64) - self.centre_ct
        n = int(_SIDE_MM / _PIXEL_MM)
        return np.array([off @ self.right_ct, off @ self.down_ct]) / _PIXEL_MM + (n - 1) / 2


def cuts(screw: Drawn, vertebra: Vertebra) -> tuple[Cut, Cut, Cut]:
    """Along the axis as seen from the feet, along it as seen from the right, and across it at the pedicle."""
    entry, tip = np.array(screw.entry_ct), np.array(screw.tip_ct)
    along = (tip - entry) / np.linalg.norm(tip - entry)
    up = vertebra.canal.T_ct_vertebra[:3, 2]
    right = np.cross(along, up)
    right /= np.linalg.norm(right)
    above = np.cross(right, along)
    isthmus_ct = vertebra.canal.to_ct(vertebra.pedicles[screw.side].isthmus[None])[0]
    at = entry + along * float(np.clip((isthmus_ct - entry) @ along, 0, screw.length_mm))
    middle = (entry + tip) / 2
    # The patient's left is on the right side, as in CT slices; seen from the right, the front is on the right.
    return (
        Cut("from below", middle, -right, -along),
        Cut("from the right", middle, along, -above),
        Cut("across the pedicle", at, -right, -above),
    )


def sheet(screws: Sequence[Drawn], vertebrae: dict[str, Vertebra], ct: sitk.Image | None = None) -> Picture:
    """All screws, one in a row, with three cuts each.

    Parameters
    ----------
    screws : sequence of Drawn
    vertebrae : dict
        By level.
    ct : SimpleITK.Image, optional
        HU; without it the bone's mask alone is drawn.

    Returns
    -------
    ndarray, shape (rows, cols, 3)
        BGR.
    """
    rows = []
    for screw in screws:
        vertebra = vertebrae[screw.level]
        pictures = [_drawn(screw, cut, vertebra, ct) for cut in cuts(screw, vertebra)]
        row = np.hstack(pictures)
        title = np.full((_TITLE_PX, row.shape[1], 3), 32, np.uint8)
        text = (
            f"{screw.level} {screw.side}: {screw.diameter_mm:g} x {screw.length_mm:g} mm, grade {screw.grade}, "
            f"clearance {screw.clearance_mm:.1f} mm"
        )
        cv2.putText(title, text, (8, 18), cv2.FONT_HERSHEY_SIMPLEX, 0.5, _COLOURS[screw.grade], 1, cv2.LINE_AA)
        rows.append(np.vstack([title, row]))
    return np.vstack(rows)


def _drawn(screw: Drawn, cut: Cut, vertebra: Vertebra, ct: sitk.Image | None) -> Picture:
    points = cut.points_ct()
    depth = vertebra.bone.depth_mm(points.reshape(-1, 3)).reshape(points.shape[:2])
    grey = np.where(depth > 0, 110.0, 20.0) if ct is None else _window(_sampled(ct, cut))
    picture = np.repeat(grey.astype(np.uint8)[:, :, None], 3, axis=2)
    contours, _ = cv2.findContours((depth > 0).astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(picture, contours, -1, _BONE, 1, cv2.LINE_AA)
    canal = vertebra.canal.distance_mm(vertebra.canal.from_ct(points.reshape(-1, 3))).reshape(depth.shape) < 0
    picture[canal & (depth <= 0)] = (0.6 * picture[canal & (depth <= 0)] + (40, 40, 0)).astype(np.uint8)
    _draw_screw(picture, screw, cut)
    cv2.putText(picture, cut.name, (6, 16), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (220, 220, 220), 1, cv2.LINE_AA)
    return picture


def _draw_screw(picture: Picture, screw: Drawn, cut: Cut) -> None:
    colour, shift = _COLOURS[screw.grade], 4
    radius = screw.diameter_mm / 2 / _PIXEL_MM
    a, b = cut.pixel(np.array(screw.entry_ct)), cut.pixel(np.array(screw.tip_ct))
    scale = 1 << shift
    if np.linalg.norm(b - a) < 1:
        centre = tuple(int(v) for v in np.rint(a * scale))
        cv2.circle(picture, centre, round(radius * scale), colour, 1, cv2.LINE_AA, shift)
        return
    along = (b - a) / np.linalg.norm(b - a)
    across = radius * np.array([-along[1], along[0]])
    round_end = b - radius * along
    turn = np.linspace(np.pi / 2, -np.pi / 2, 13)
    tip = round_end + radius * (np.cos(turn)[:, None] * along) + np.sin(turn)[:, None] * across
    outline = np.rint(np.vstack([a - across, a + across, tip]) * scale).astype(np.int32)
    cv2.polylines(picture, [outline], True, colour, 1, cv2.LINE_AA, shift)


def _sampled(ct: sitk.Image, cut: Cut) -> Float:
    """HU in the plane of a cut."""
    n = int(_SIDE_MM / _PIXEL_MM)
    corner = cut.centre_ct - (n - 1) / 2 * _PIXEL_MM * (cut.right_ct + cut.down_ct)
    direction = np.stack([cut.right_ct, cut.down_ct, np.cross(cut.right_ct, cut.down_ct)], axis=1)
    plane = sitk.Resample(
        ct, [n, n, 1], sitk.Transform(), sitk.sitkLinear, corner.tolist(), [_PIXEL_MM] * 3,
        direction.ravel().tolist(), -1000.0, sitk.sitkFloat32,
    )  # fmt: skip
    return sitk.GetArrayFromImage(plane)[0].astype(np.float64)


def _window(hu: Float) -> Float:
    low, high = _WINDOW_HU
    return np.clip((hu - low) / (high - low), 0, 1) * 255
