"""Silhouettes of structures in the image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from fluoronav.case import NoGo, Structure
from fluoronav.case.surfaces import surface_points
from fluoronav.geometry import Camera, transform_points
from fluoronav.stream.frame import Outline

Float = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class OutlineSettings:
    """Settings of the silhouettes; all are chosen."""

    side_px: int = 256  # longer side of the small image in which silhouettes are searched
    least_contour_px: int = 12
    least_curve: int = 8  # points
    thinned_from: int = 60  # points of a curve, of which every second is then left out


SETTINGS = OutlineSettings()


@dataclass
class Silhouette:
    """The points of a surface that form its silhouette from one direction, as closed curves, LPS mm."""

    structure: str
    color: str
    curves_ct: list[Float]


class OutlineModel:
    """Silhouettes that follow small motions exactly and are searched anew after large ones.

    Each structure's surface points are drawn into a small image that holds their indices. The border of the drawing
    gives the points of the silhouette. While the view turns little the silhouette consists of the same points, and a
    frame only has to project them.
    """

    def __init__(self, structures: Sequence[Structure | NoGo], camera: Camera) -> None:
        self._surfaces = [(s, surface_points(s)) for s in structures]
        self._camera = camera
        self._scale = SETTINGS.side_px / max(camera.rows, camera.cols)
        self._small = camera.scaled(self._scale)

    def silhouettes(self, T_camera_ct: Float) -> list[Silhouette]:
        """Searches the silhouettes for a pose (milliseconds: not on the frame path)."""
        found = []
        for structure, points in self._surfaces:
            curves = self._curves(points, T_camera_ct) if len(points) else []
            found.append(Silhouette(structure.name, structure.color, curves))
        return found

    def outlines(
        self, silhouettes: list[Silhouette], T_camera_ct: Float, own: Mapping[str, Float]
    ) -> tuple[Outline, ...]:
        """Projects silhouettes into the image, pixels to a tenth.

        Parameters
        ----------
        silhouettes : list of Silhouette
        T_camera_ct : ndarray, shape (4, 4)
        own : mapping
            Pose by structure, for those that have their own.
        """
        out = []
        for silhouette in silhouettes:
            paths = []
            T = own.get(silhouette.structure, T_camera_ct)
            for curve in silhouette.curves_ct:
                uv = self._camera.project(transform_points(T, curve))
                if np.isfinite(uv).all():
                    paths.append(np.round(uv, 1))
            if paths:
                out.append(Outline(silhouette.structure, silhouette.color, tuple(paths)))
        return tuple(out)

    def _curves(self, points_ct: Float, T_camera_ct: Float) -> list[Float]:
        margin = SETTINGS.side_px // 4
        rows, cols = self._small.rows + 2 * margin, self._small.cols + 2 * margin
        uv = self._small.project(transform_points(T_camera_ct, points_ct)) + margin
        ok = np.asarray(np.isfinite(uv).all(1))
        at = np.rint(np.where(ok[:, None], uv, -1)).astype(int)
        ok &= (at[:, 0] >= 1) & (at[:, 0] < cols - 1) & (at[:, 1] >= 1) & (at[:, 1] < rows - 1)
        if not ok.any():
            return []
        which = np.full((rows, cols), -1, np.int32)
        which[at[ok, 1], at[ok, 0]] = np.flatnonzero(ok)
        mask = cv2.morphologyEx((which >= 0).astype(np.uint8), cv2.MORPH_CLOSE, np.ones((5, 5), np.uint8))
        contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        curves = []
        for contour in contours:
            if len(contour) < SETTINGS.least_contour_px:
                continue
            indices = []
            for u, v in contour[:, 0]:
                index = which[v, u]
                if index < 0:
                    window = which[max(v - 1, 0) : v + 2, max(u - 1, 0) : u + 2]
                    index = window.max()
                if index >= 0 and (not indices or indices[-1] != index):
                    indices.append(index)
            if len(indices) >= SETTINGS.least_curve:
                curve = points_ct[indices]
                # Smoothed along the curve: neighbouring points come from different depths of the surface.
                smooth = (np.roll(curve, 1, 0) + 2 * curve + np.roll(curve, -1, 0)) / 4
                curves.append(smooth[:: 2 if len(smooth) > SETTINGS.thinned_from else 1])
        return curves
