"""Collimator blades that are nearly parallel to the image's sides, found however little the signal drops at them.

Behind a blade arrives what the patient scatters, which beside a head or at the spine is nearly as bright as the field.
What tells a blade from anatomy is not how far the log signal drops, but that it drops within two pixels, is flatter
before and behind, and does so all along a straight line.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from fluoronav.imaging.xray.field_shapes import FIELD_SIDE, Line

Float32 = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class BladeLimits:
    """Limits of the search. Pixels are of an image of 128 pixels, and scale with it.

    Attributes
    ----------
    turns_deg, fine_deg : tuple of float
        Angles to the image's sides that are tried, and those around the best of them. Chosen.
    innermost : float
        Least distance of a blade from the image's middle, of half its side. Chosen: a narrower field is dim as a whole,
        and is found by its lit pixels.
    drop_px : int
        Length over which the signal drops at the edge, and over which it is looked at before and behind it. A blade's
        penumbra has 1 px.
    ends_px : int
        At either end of the line what is looked at may lie behind the next blade. Chosen.
    along_px : int
        Over which the signal is averaged along the blade, against noise. Chosen.
    drop : float
        Minimum drop of the log signal, beyond what it drops before or behind. Chosen.
    least_along : float
        Minimum share of the line along which it drops so. In exposures of two patients and a head by another X-ray
        simulator 396 of 400 blades had 0.90 and more; what was cut out of their fields had 0.77 at most.
    """

    turns_deg: tuple[float, ...] = (-6.0, -4.0, -2.0, 0.0, 2.0, 4.0, 6.0)
    fine_deg: tuple[float, ...] = (-1.0, 1.0)
    innermost: float = 0.4
    drop_px: int = 3
    ends_px: int = 20
    along_px: int = 5
    drop: float = 0.1
    least_along: float = 0.85


BLADES = BladeLimits()
# Share of the line and mean drop; angle, degrees; distance from the middle, pixels.
_Found = tuple[tuple[float, float], float, float]


def find_straight_blades(signal: Float32, floor: float) -> list[Line]:
    """The blades that are nearly parallel to the image's sides, at most one at each side.

    Parameters
    ----------
    signal : ndarray of float32, shape (rows, cols)
        Counts above the dark level.
    floor : float
        Signal below which lies the noise of the dark level.

    Returns
    -------
    list of Line
        In pixels of that image.
    """
    log = np.log(signal + np.float32(floor))
    found: dict[int, _Found] = {}
    for turn_deg in BLADES.turns_deg:
        _look(log, turn_deg, range(4), found)
    for side, (_, turn_deg, _) in list(found.items()):
        for fine_deg in BLADES.fine_deg:
            _look(log, turn_deg + fine_deg, [side], found)
    return [
        _line(log.shape, side, turn_deg, out_px)
        for side, ((share, _), turn_deg, out_px) in sorted(found.items())
        if share >= BLADES.least_along
    ]


def _look(log: Float32, turn_deg: float, sides: Sequence[int], found: dict[int, _Found]) -> None:
    """Keeps, of each side, the best line at this angle or before: share along it, angle, distance from the middle."""
    rows, cols = log.shape
    middle = ((cols - 1) / 2, (rows - 1) / 2)
    turned = cv2.warpAffine(
        log, cv2.getRotationMatrix2D(middle, turn_deg, 1.0), (cols, rows), borderMode=cv2.BORDER_REPLICATE
    )
    scale = max(rows, cols) / FIELD_SIDE
    drop, ends, along = (max(round(n * scale), 1) for n in (BLADES.drop_px, BLADES.ends_px, BLADES.along_px))
    for side in sides:
        outwards = turned if side % 2 == 0 else turned.T
        outwards = outwards if side < 2 else outwards[:, ::-1]
        half = (outwards.shape[1] - 1) / 2
        first = max(round(half * (1 + BLADES.innermost)) - drop, 0)
        part = cv2.blur(np.ascontiguousarray(outwards[ends:-ends, first:]), (1, along))
        part = cv2.copyMakeBorder(part, 0, 0, 0, drop, cv2.BORDER_REPLICATE)  # of some blades little more is seen
        # How far the log signal falls before the edge, at it, and behind it.
        falls = part[:, :-drop] - part[:, drop:]
        before, step, behind = falls[:, : -2 * drop], falls[:, drop:-drop], falls[:, 2 * drop :]
        sharp = step - np.maximum(np.maximum(before, behind), 0)
        # Behind a rod it is bright again.
        brightest_beyond = np.maximum.accumulate(part[:, ::-1], axis=1)[:, ::-1]
        stays_dark = part[:, drop : -2 * drop] > brightest_beyond[:, 2 * drop : -drop]
        share, strength = ((sharp > BLADES.drop) & stays_dark).mean(0), step.mean(0)
        # Where the line passes along its whole length at several distances, the edge is where the signal drops most.
        k = int(np.argmax(np.where(share > share.max() - 0.02, strength, -np.inf)))
        if side not in found or (share[k], strength[k]) > found[side][0]:
            found[side] = (share[k], strength[k]), turn_deg, first + k + 1.5 * drop - half


def _line(shape: tuple[int, ...], side: int, turn_deg: float, out_px: float) -> Line:
    outwards = np.array([1.0, 0.0] if side % 2 == 0 else [0.0, 1.0]) * (1 if side < 2 else -1)
    turn = np.deg2rad(turn_deg)
    normal = -(np.cos(turn) * outwards + np.sin(turn) * np.array([-outwards[1], outwards[0]]))
    middle = np.array([shape[1] - 1, shape[0] - 1]) / 2
    return Line(normal, float(normal @ middle) - out_px)
