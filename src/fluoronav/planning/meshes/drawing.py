"""A picture of bodies without a graphics card: shaded triangles, drawn from back to front."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from fluoronav.planning.meshes.parts import Part
from fluoronav.planning.meshes.solid import Float, solid, surface_of

_COARSE_MM = 0.4  # of the bodies that are drawn; chosen: below a pixel of a picture of a vertebra
_MOST_TRIANGLES = 120_000  # of one body before it is made coarser
_MARGIN = 0.06  # of the picture's side that stays free
_AMBIENT = 0.35  # of the light; chosen by eye
_GROUND = (32, 28, 24)
# Where the viewer stands: right and up in the picture, LPS.
_VIEWS: dict[str, tuple[tuple[float, float, float], tuple[float, float, float]]] = {
    "from behind": ((-1, 0, 0), (0, 0, 1)),
    "from the left": ((0, 1, 0), (0, 0, 1)),
    "from the feet": ((1, 0, 0), (0, -1, 0)),
}


def drawn(parts: Sequence[Part], title: str, size: int = 640) -> NDArray[np.uint8]:
    """The bodies from behind, from the left and from the feet, side by side, with a legend below.

    Parameters
    ----------
    parts : sequence of Part
    title : str
    size : int
        Pixels of one view's side.

    Returns
    -------
    ndarray of uint8, shape (rows, 3 * size, 3)
        BGR.
    """
    coarse = [_coarse(p) for p in parts]
    views = [_view(coarse, np.array(right), np.array(up), name, size) for name, (right, up) in _VIEWS.items()]
    return np.vstack([np.hstack(views), _legend(parts, title, 3 * size)])


def _coarse(p: Part) -> tuple[Float, NDArray[np.int64], NDArray[np.float64]]:
    mesh = p.mesh
    if len(mesh.triangles) > 2000:
        mesh = surface_of(
            solid(mesh, p.name).simplify(_COARSE_MM * (3 if len(mesh.triangles) > _MOST_TRIANGLES else 1))
        )
    return mesh.points, mesh.triangles, _bgr(p.color)


def _view(
    bodies: list[tuple[Float, NDArray[np.int64], Float]], right: Float, up: Float, name: str, size: int
) -> NDArray[np.uint8]:
    towards = np.cross(right, up)
    axes = np.stack([right, -up, towards])
    every = np.vstack([points for points, _, _ in bodies]) @ axes.T
    low, high = every.min(0), every.max(0)
    scale = size * (1 - 2 * _MARGIN) / max(float((high - low)[:2].max()), 1e-6)
    corners, colors = [], []
    light = (axes.T @ np.array([-0.4, -0.5, 0.77])) / np.linalg.norm([-0.4, -0.5, 0.77])
    for points, triangles, color in bodies:
        tri = points[triangles]
        normal = np.cross(tri[:, 1] - tri[:, 0], tri[:, 2] - tri[:, 0])
        normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-12)
        seen = normal @ towards > 0
        shade = _AMBIENT + (1 - _AMBIENT) * np.clip(normal[seen] @ light, 0, 1)
        corners.append(tri[seen] @ axes.T)
        colors.append(shade[:, None] * color)
    tri, color = np.concatenate(corners), np.concatenate(colors)
    order = np.argsort(tri[:, :, 2].mean(1))
    px = (tri[:, :, :2] - (low + high)[:2] / 2) * scale + size / 2
    # OpenCV draws between pixels: positions in 1/16 pixel.
    px = np.rint(px * 16).astype(np.int32)
    image = np.full((size, size, 3), _GROUND, np.uint8)
    for k in order:
        cv2.fillConvexPoly(image, px[k], color[k].tolist(), cv2.LINE_AA, 4)
    cv2.putText(image, name, (10, 22), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (220, 220, 220), 1, cv2.LINE_AA)
    bar = 10 * scale
    cv2.line(image, (10, size - 12), (round(10 + bar), size - 12), (220, 220, 220), 2)
    cv2.putText(image, "10 mm", (14, size - 18), cv2.FONT_HERSHEY_SIMPLEX, 0.4, (220, 220, 220), 1, cv2.LINE_AA)
    return image


def _legend(parts: Sequence[Part], title: str, width: int) -> NDArray[np.uint8]:
    rows = -(-len(parts) // 3)
    image = np.full((34 + 20 * rows, width, 3), (20, 18, 16), np.uint8)
    cv2.putText(image, title, (10, 22), cv2.FONT_HERSHEY_SIMPLEX, 0.55, (255, 255, 255), 1, cv2.LINE_AA)
    for k, p in enumerate(parts):
        x, y = 10 + k % 3 * width // 3, 42 + 20 * (k // 3)
        cv2.rectangle(image, (x, y - 9), (x + 10, y + 1), _bgr(p.color).tolist(), -1)
        text = f"{p.name}: {p.mesh.volume_mm3 / 1000:.2f} cm3"
        cv2.putText(image, text, (x + 16, y), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (220, 220, 220), 1, cv2.LINE_AA)
    return image


def _bgr(color: str) -> Float:
    return np.array([int(color[k : k + 2], 16) for k in (5, 3, 1)], float)
