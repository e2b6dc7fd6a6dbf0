"""Which size of an implant fits a bone: how far its outline reaches over the cut bone, by side. Lengths in mm."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from manifold3d import CrossSection, Manifold

from fluoronav.geometry import inverse
from fluoronav.planning.meshes.solid import Float, MeshError
from fluoronav.planning.simulation.catalogue import Catalogue

_SIDES = ("left", "back", "right", "front")  # of the implant's +x, +y, -x, -y
_STEP_MM = 0.5  # between points of an outline; chosen: finer than bone is cut
_BELOW_MM = 0.01  # the bone is cut just below the implant, since its own surface may lie in that plane


@dataclass(frozen=True, slots=True)
class SizingLimits:
    """When a size is too large."""

    # Femoral components that overhang by 3 mm or more hurt twice as often (Mahoney and Kinsey, J Bone Joint Surg Am 92,
    # 2010); chosen well below that, for the error of cuts.
    overhang_mm: float = 1.0


LIMITS = SizingLimits()


@dataclass(frozen=True)
class Fit:
    """How a size lies on a bone.

    Attributes
    ----------
    size : str
    overhang_mm : dict of str to float
        By side, how far the implant reaches over the bone at most.
    underhang_mm : dict of str to float
        By side, how far the bone reaches over the implant at most.
    covered : float
        Share of the cut bone that the implant covers.
    """

    size: str
    overhang_mm: dict[str, float]
    underhang_mm: dict[str, float]
    covered: float

    @property
    def fits(self) -> bool:
        return max(self.overhang_mm.values()) <= LIMITS.overhang_mm

    def report(self) -> dict[str, Any]:
        return {
            "size": self.size, "fits": self.fits, "overhang_mm": self.overhang_mm, "underhang_mm": self.underhang_mm,
            "covered": round(self.covered, 3),
        }  # fmt: skip


def fits_of(catalogue: Catalogue, family: str, bone: Manifold, T_ct_implant: Float) -> list[Fit]:
    """How each size of a family lies on a bone; empty for implants that lie on no cut.

    Parameters
    ----------
    catalogue : Catalogue
    family : str
    bone : Manifold
        LPS mm.
    T_ct_implant : ndarray, shape (4, 4)
        The implant's plane z = 0 is the cut.

    Raises
    ------
    MeshError
        The plane misses the bone.
    """
    sizes = list(catalogue.families[family][0].sizes)
    outlines = {size: catalogue.outline(family, size) for size in sizes}
    if not any(outlines.values()):
        return []
    section = bone.transform(inverse(np.asarray(T_ct_implant, float))[:3]).slice(-_BELOW_MM)
    parts = [p for p in section.decompose() if p.area() > 0]
    if not parts:
        raise MeshError(f"{family}: the plane that it lies on (z = 0 of T_ct_implant) misses the bone")
    # A plane may meet the bone twice; the implant lies on the part under its origin, else on the nearest.
    cut = min(parts, key=lambda p: -_signed(p, np.zeros((1, 2)))[0])
    return [_fit(size, outline, cut) for size, outline in outlines.items() if outline is not None]


def suggested(fits: list[Fit]) -> Fit | None:
    """The size that covers most of the bone without too much overhang; None where none fits."""
    return max((f for f in fits if f.fits), key=lambda f: f.covered, default=None)


def _fit(size: str, outline: CrossSection, cut: CrossSection) -> Fit:
    own, bone = _points(outline), _points(cut)
    return Fit(
        size, _reach(own, cut, outline), _reach(bone, outline, outline), (cut ^ outline).area() / cut.area()
    )  # fmt: skip


def _reach(points: Float, over: CrossSection, frame: CrossSection) -> dict[str, float]:
    """How far points reach out of a shape at most, by the side of the implant's outline; at least 0."""
    x0, y0, x1, y1 = frame.bounds()
    scaled = (points - [(x0 + x1) / 2, (y0 + y1) / 2]) / [(x1 - x0) / 2, (y1 - y0) / 2]
    side = np.rint(np.arctan2(scaled[:, 1], scaled[:, 0]) / (np.pi / 2)).astype(int) % 4
    out = -_signed(over, points)
    return {
        name: round(float(max(out[side == k].max(initial=0.0), 0.0)), 2) for k, name in enumerate(_SIDES)
    }  # fmt: skip


def _signed(shape: CrossSection, points: Float) -> Float:
    """Distance of points to a shape's outer border, positive inside."""
    border = np.asarray(max(shape.to_polygons(), key=lambda p: cv2.contourArea(np.asarray(p, np.float32))), np.float32)
    return np.array([cv2.pointPolygonTest(border, (float(x), float(y)), True) for x, y in points])


def _points(shape: CrossSection) -> Float:
    """Points along the outer border."""
    border = np.asarray(max(shape.to_polygons(), key=lambda p: cv2.contourArea(np.asarray(p, np.float32))), float)
    out = []
    for a, b in zip(border, np.roll(border, -1, axis=0), strict=True):
        n = max(int(np.ceil(np.linalg.norm(b - a) / _STEP_MM)), 1)
        out.append(a + (b - a) * np.arange(n)[:, None] / n)
    return np.concatenate(out)
