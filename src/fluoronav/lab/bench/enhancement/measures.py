"""Figures of an image against the truth: noise, contrast, edges and ghosts."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from fluoronav.lab.bench.enhancement.scene import SETTINGS, MovingWire

Float = NDArray[np.float64]
Float32 = NDArray[np.float32]


def figures(scene: MovingWire, k: int, out: Float32, truth: list[Float32]) -> dict[str, float]:
    inside, wire = scene.field_mask, scene.on_wire[k]
    off = out - truth[k]
    span = float(np.ptp(np.percentile(truth[k][inside], [1, 99])))
    psnr = 20 * np.log10(span / float(np.sqrt((off[inside] ** 2).mean())))
    near = cv2.dilate(wire.astype(np.uint8), np.ones((SETTINGS.near_px,) * 2, np.uint8)) > 0
    beside = near & ~(cv2.dilate(wire.astype(np.uint8), np.ones((SETTINGS.beside_px,) * 2, np.uint8)) > 0)
    contrast = float(out[beside].mean() - out[wire].mean())
    detrended = off[beside] - off[beside].mean()
    cnr_wire = contrast / max(float(detrended.std()), 1e-9)
    slope = np.hypot(cv2.Sobel(scene.bone, cv2.CV_32F, 1, 0), cv2.Sobel(scene.bone, cv2.CV_32F, 0, 1))
    edge = inside & ~near & (slope > np.percentile(slope[inside], SETTINGS.steepest))
    steep = np.hypot(cv2.Sobel(truth[k], cv2.CV_32F, 1, 0), cv2.Sobel(truth[k], cv2.CV_32F, 0, 1))[edge].mean() / 8
    cnr_edge = 10 * float(steep) / max(float(off[edge].std()), 1e-9)
    before = scene.on_wire[k - 1] & ~(cv2.dilate(wire.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0)
    true_contrast = float(truth[k][beside].mean() - truth[k][wire].mean())
    ghost = abs(float(off[before].mean())) / true_contrast if before.any() else 0.0
    return {
        "psnr_db": float(psnr),
        "ssim": _ssim(out, truth[k], span, inside),
        "cnr_wire": cnr_wire,
        "cnr_bone_edge": cnr_edge,
        "edge_px": edge_width_px(out, *scene.axis[k]),
        "ghost": ghost,
    }


def _ssim(a: Float32, b: Float32, span: float, inside: NDArray[np.bool_]) -> float:
    """SSIM of Wang et al., IEEE TIP 13:600, 2004, with its Gaussian window of 1.5 pixels."""

    def mean(image: NDArray) -> NDArray:
        return cv2.GaussianBlur(image, (11, 11), 1.5)

    ma, mb = mean(a), mean(b)
    va, vb, cov = mean(a * a) - ma * ma, mean(b * b) - mb * mb, mean(a * b) - ma * mb
    c1, c2 = (0.01 * span) ** 2, (0.03 * span) ** 2
    value = (2 * ma * mb + c1) * (2 * cov + c2) / ((ma * ma + mb * mb + c1) * (va + vb + c2))
    return float(value[inside].mean())


def edge_width_px(image: Float32, tip: Float, direction: Float) -> float:
    """Width of the wire's edges from 10 to 90 % of its shadow, pixels, on the mean profile across the shaft."""
    normal = np.array([-direction[1], direction[0]])
    along, across = np.arange(40.0, 300.0), np.arange(-16, 16.1, 0.25)
    at = tip + along[:, None, None] * direction + across[None, :, None] * normal
    x, y = (np.ascontiguousarray(at[..., i], np.float32) for i in (0, 1))
    profile = cv2.remap(image, x, y, cv2.INTER_CUBIC).mean(0)
    ends = (profile[:12].mean() + profile[-12:].mean()) / 2
    depth = np.clip((ends - profile) / max(float(ends - profile.min()), 1e-9), 0, 1)
    middle = int(depth.argmax())
    widths = []
    for side in (depth[: middle + 1][::-1], depth[middle:]):
        places = []
        for level in (0.9, 0.1):
            k = max(int(np.argmax(side < level)), 1)
            places.append(k - (level - side[k]) / max(float(side[k - 1] - side[k]), 1e-9))
        widths.append(places[1] - places[0])
    return 0.25 * float(np.mean(widths))
