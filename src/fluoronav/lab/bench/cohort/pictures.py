"""Pictures of exposures with the target bone where it is and where it was found."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from fluoronav.lab.bench.cohort.render import Exposure, render

Float = NDArray[np.float64]
_GREEN, _RED, _WHITE = (90, 230, 90), (80, 80, 255), (255, 255, 255)  # BGR
_QUALITY, _SIDE = 80, 360  # of a picture beside others, pixels
# Of what is broader than the second little is left: vertebrae are shown, and not lungs against abdomen; chosen.
_FINE_PX, _BROAD_PX, _BROAD_TAKEN = 2.0, 50.0, 0.8


def write_pictures(
    rows: list[dict[str, Any]], people: list[tuple[str, ...]], folder: Path,
    again: Callable[[str, int, list[tuple[str, ...]]], Exposure] = render,
) -> list[Path]:  # fmt: skip
    """Renders exposures again and draws the target bone: green where it is, red where it was found.

    Parameters
    ----------
    rows : list of dict
        From :func:`fluoronav.lab.bench.cohort.registering.measured`.
    people : list of tuple
    folder : Path
        Created if needed.
    again : callable
        Renders an exposure by scene, seed and people.

    Returns
    -------
    list of Path
        JPEG files, named by rank, scene and seed; the last, ``all.jpg``, shows them beside one another.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths, small = [], []
    for rank, row in enumerate(rows, 1):
        exposure = again(row["scene"], row["seed"], people)
        path = folder / f"{rank}-{row['scene']}-{row['seed']}.jpg"
        picture = drawn(exposure, row)
        cv2.imwrite(str(path), picture, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
        paths.append(path)
        scale = _SIDE / picture.shape[1]
        small.append(cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA))
    if small:
        paths.append(folder / "all.jpg")
        cv2.imwrite(str(paths[-1]), np.hstack(small), [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    return paths


def drawn(exposure: Exposure, row: dict[str, Any]) -> NDArray[np.uint8]:
    """The picture with outlines, and text below it, shape (rows, cols, 3), BGR."""
    counts = exposure.counts.astype(np.float32)
    logs = np.log(np.maximum(counts - np.percentile(counts, 0.1), 1))
    logs = cv2.GaussianBlur(logs, (0, 0), _FINE_PX) - _BROAD_TAKEN * cv2.GaussianBlur(logs, (0, 0), _BROAD_PX)
    low, high = np.percentile(logs, (2, 99))
    grey = (255 * np.clip((logs - low) / max(high - low, 1e-6), 0, 1)).astype(np.uint8)
    picture = cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR)
    if exposure.region.target:
        if row["present"]:
            _outline(picture, exposure, exposure.T_camera_ct, _GREEN)
        if "T_camera_ct" in row:
            _outline(picture, exposure, np.array(row["T_camera_ct"]), _RED)
    # The picture is shown at a third of its size.
    picture = cv2.copyMakeBorder(picture, 0, 146, 0, 0, cv2.BORDER_CONSTANT)
    for text, up_px in zip(_texts(row), (108, 62, 16), strict=True):
        at = 12, picture.shape[0] - up_px
        cv2.putText(picture, text, at, cv2.FONT_HERSHEY_SIMPLEX, 1.4, _WHITE, 2, cv2.LINE_AA)
    return np.asarray(picture, np.uint8)


def _texts(row: dict[str, Any]) -> tuple[str, str, str]:
    """What is shown, and what was believed of it with its bounds: three lines."""
    what = "wrong, believed" if row["wrong_believed"] else "believed" if row["believed"] else "refused"
    where = f"{row['scene']}, {row['region']}"
    if "across_mm" not in row:
        return where, what, ""
    turned = "" if row["bound_degrees"] is None else f", {row['degrees']:.1f} deg ({row['bound_degrees']:.1f})"
    return (
        where,
        f"{what}: across {row['across_mm']:.2f} mm, bound {row['bound_mm']:.2f}",
        f"in space {row['space_mm']:.1f} mm ({row['bound_space_mm']:.1f}){turned}",
    )


def _outline(picture: NDArray[np.uint8], exposure: Exposure, T_camera_ct: Float, colour: tuple[int, int, int]) -> None:
    """Draws the shadow's outline of the target bone for a pose."""
    points = exposure.other.bone_points_ct(exposure.region.target, 20_000)
    in_camera = points @ T_camera_ct[:3, :3].T + T_camera_ct[:3, 3]
    px = exposure.camera.project(in_camera[in_camera[:, 2] > 1])
    at = np.rint(px[np.isfinite(px).all(1)]).astype(int)
    at = at[((at >= 0) & (at < picture.shape[1::-1])).all(1)]
    mask = np.zeros(picture.shape[:2], np.uint8)
    mask[at[:, 1], at[:, 0]] = 255
    mask = cv2.morphologyEx(mask, cv2.MORPH_CLOSE, np.ones((17, 17), np.uint8))
    found, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(picture, found, -1, colour, 2, cv2.LINE_AA)
