"""Shutters and collimators of an X-ray image as a mask of what is seen.

A display shutter (PS3.3 C.7.6.11) hides what a viewer is not to show; a collimator (PS3.3 C.8.7.3.1) kept X-rays off.
Both are given as edges in rows and columns that count from 1, and several shapes together leave what all of them leave.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from fluoronav.dicom.errors import DicomError
from fluoronav.dicom.xray_header import XrayHeader

Mask = NDArray[np.bool_]
_LEAST_SEEN = 0.005  # fraction of the image that shapes must leave; chosen: a tenth of a field of a tenth


@dataclass(frozen=True)
class Shutters:
    """What shutters and collimators leave.

    Attributes
    ----------
    mask : ndarray of bool, shape (rows, cols), or None
        True where the image is seen; None where there are none.
    shapes : tuple of str
        Each in words, as "rectangular shutter, columns 10 to 90, rows 5 to 60".
    notes : tuple of str
        Shapes that are not known and not used.
    """

    mask: Mask | None
    shapes: tuple[str, ...]
    notes: tuple[str, ...] = ()


def read_shutters(header: XrayHeader) -> Shutters:
    """The shutters and collimators of a frame.

    Raises
    ------
    DicomError
        An edge is missing or contradicts another, or nothing of the image is left.
    """
    rows, cols = header.integer("Rows", 0), header.integer("Columns", 0)
    mask, shapes, notes = None, [], []
    for what in ("Shutter", "Collimator"):
        for shape in _shapes(header, what):
            if shape not in _SHAPES:
                notes.append(f"{what}Shape {shape[:16]} is not known and not used")
                continue
            seen, words = _SHAPES[shape](header, what, (rows, cols))
            mask = seen if mask is None else mask & seen
            shapes.append(f"{shape.lower()} {what.lower()}, {words}")
    if mask is not None and mask.mean() < _LEAST_SEEN:
        raise DicomError(
            f"{header.path}: its shutters leave nothing of the image ({'; '.join(shapes)}): their edges are of another "
            "image, or damaged"
        )
    return Shutters(mask, tuple(shapes), tuple(notes))


def _shapes(header: XrayHeader, what: str) -> list[str]:
    value = header.get(f"{what}Shape")
    if value is None:
        return []
    return [str(v).strip().upper() for v in ([value] if isinstance(value, str) else value) if str(v).strip()]


def _needed(header: XrayHeader, name: str, count: int) -> tuple[float, ...]:
    numbers = header.numbers(name, count) if count > 1 else header.number(name)
    if numbers is None:
        raise DicomError(f"{header.path}: {name} is missing or empty, though its shape needs it")
    return numbers if isinstance(numbers, tuple) else (numbers,)


def _rectangle(header: XrayHeader, what: str, size: tuple[int, int]) -> tuple[Mask, str]:
    left, right, upper, lower = (
        _needed(header, f"{what}{edge}Edge", 1)[0]
        for edge in ("LeftVertical", "RightVertical", "UpperHorizontal", "LowerHorizontal")
    )
    if left >= right or upper >= lower:
        raise DicomError(
            f"{header.path}: the edges of its {what.lower()} contradict each other: columns {left:g} to {right:g}, "
            f"rows {upper:g} to {lower:g}"
        )
    row, col = np.ogrid[1 : size[0] + 1, 1 : size[1] + 1]
    seen = (row >= upper) & (row <= lower) & (col >= left) & (col <= right)
    return seen, f"columns {left:g} to {right:g}, rows {upper:g} to {lower:g}"


def _circle(header: XrayHeader, what: str, size: tuple[int, int]) -> tuple[Mask, str]:
    centre = _needed(header, f"CenterOfCircular{what}", 2)
    (radius,) = _needed(header, f"RadiusOfCircular{what}", 1)
    if radius <= 0:
        raise DicomError(f"{header.path}: RadiusOfCircular{what} is {radius:g}; it must be above 0")
    # The radius counts pixels along a row; where pixels are not square, the circle is one on the detector.
    aspect = header.numbers("PixelAspectRatio", 2) or header.numbers("ImagerPixelSpacing", 2) or (1.0, 1.0)
    row, col = np.ogrid[1 : size[0] + 1, 1 : size[1] + 1]
    tall = aspect[0] / aspect[1] if aspect[1] > 0 else 1.0
    seen = ((row - centre[0]) * tall) ** 2 + (col - centre[1]) ** 2 <= radius**2
    return seen, f"centre in row {centre[0]:g} and column {centre[1]:g}, radius {radius:g} pixels"


def _polygon(header: XrayHeader, what: str, size: tuple[int, int]) -> tuple[Mask, str]:
    name = f"VerticesOfThePolygonal{what}"
    value = header.get(name)
    count = len(value) if value is not None and not isinstance(value, (str, int, float)) else 0
    if count < 6 or count % 2:
        raise DicomError(f"{header.path}: {name} has {count} numbers; it needs rows and columns of 3 vertices")
    vertices = np.array(header.numbers(name, count)).reshape(-1, 2)
    if np.abs(vertices).max() > 1e5:
        raise DicomError(f"{header.path}: {name} has a vertex far outside of the image")
    seen = np.zeros(size, np.uint8)
    # Rows and columns from 1 become x and y from 0.
    cv2.fillPoly(seen, [np.rint(vertices[:, ::-1] - 1).astype(np.int32)], 1)
    return seen > 0, f"{len(vertices)} vertices"


_SHAPES = {"RECTANGULAR": _rectangle, "CIRCULAR": _circle, "POLYGONAL": _polygon}
