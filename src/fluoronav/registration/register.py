"""`fluoronav register`: files in, a result for JSON out."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from fluoronav.case import Volume, read_volume
from fluoronav.enhancement.aperture import seen_mask
from fluoronav.geometry import Camera, is_rigid
from fluoronav.projector import Projector
from fluoronav.registration.model import model_grids
from fluoronav.registration.offline import OfflineRegistration, View

_MASK_SIDE = 128
_FADE_MM, _MARGIN_MM = 1.0, 2.0


class RegisterError(ValueError):
    """An input that cannot be registered; the text names the file and what is wrong."""


def register_files(
    volume: Path,
    images: list[Path],
    cameras: list[Path],
    init: Path,
    overlay: Path | None = None,
    progress: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """Registers a volume to images.

    Returns
    -------
    dict
        ``accepted``, ``reason``, ``ms`` and ``views``: per image ``T_camera_ct`` (4 x 4), ``score``, ``sigma`` (deg,
        mm, camera axes), ``tre_mm``, ``tre_image_mm``.

    Raises
    ------
    RegisterError, CaseError, CameraError
    """
    if len(images) != len(cameras):
        raise RegisterError(
            f"{len(images)} images but {len(cameras)} cameras: give one camera file per image, in order"
        )
    views = [_view(i, Camera.load(c)) for i, c in zip(images, cameras, strict=True)]
    T_camera_ct = _read_init(init)
    ct = _hounsfield(read_volume(volume))
    spacing = max(min(ct.image.GetSpacing()), 0.3)
    try:
        model, bone = model_grids(ct, None, (), spacing, _MARGIN_MM, _FADE_MM)
    except ValueError as error:
        raise RegisterError(f"{volume}: {error}") from error
    start = time.perf_counter()
    result = OfflineRegistration(model, bone, views).run(T_camera_ct, progress)
    ms = (time.perf_counter() - start) * 1000
    if overlay is not None:
        T = result.views[0].T_camera_ct
        cv2.imwrite(str(overlay), _drawn(views[0], Projector(bone).render(T, views[0].camera)))
    return {
        "accepted": result.accepted,
        "reason": result.reason,
        "ms": ms,
        "views": [
            {
                "image": str(path),
                "T_camera_ct": e.T_camera_ct.tolist(),
                "score": e.score,
                "sigma": sigma.tolist(),
                "tre_mm": tre,
                "tre_image_mm": tre_image,
            }
            for path, e, sigma, tre, tre_image in zip(
                images, result.views, result.sigma, result.tre_mm, result.tre_image_mm, strict=True
            )
        ],
    }


def _view(path: Path, camera: Camera) -> View:
    image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED) if path.is_file() else None
    if image is None:
        raise RegisterError(f"{path}: cannot be read as an image (TIFF or PNG)")
    if image.ndim == 3:
        image = cv2.cvtColor(image[..., :3], cv2.COLOR_BGR2GRAY)
    if image.shape != (camera.rows, camera.cols):
        raise RegisterError(
            f"{path}: is {image.shape[0]} x {image.shape[1]} pixels, {camera.name} says {camera.rows} x {camera.cols}"
        )
    if image.dtype not in (np.uint8, np.uint16):
        raise RegisterError(f"{path}: has pixels of type {image.dtype}; 8 or 16 bit counts were expected")
    counts = image.astype(np.float32)
    small = cv2.resize(counts, (_MASK_SIDE, _MASK_SIDE), interpolation=cv2.INTER_AREA)
    full = float(np.iinfo(image.dtype).max)
    return View(camera, -np.log(np.maximum(counts, 1) / full), seen_mask(np.asarray(small, dtype=np.float32)))


def _read_init(path: Path) -> NDArray[np.float64]:
    try:
        T = np.array(json.loads(path.read_text())["T_camera_ct"], dtype=np.float64)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RegisterError(f'{path}: must hold {{"T_camera_ct": 4 x 4}} as JSON: {error!r}') from error
    if not is_rigid(T):
        raise RegisterError(f"{path}: T_camera_ct is not a rigid, right-handed 4 x 4 motion")
    return T


def _hounsfield(volume: Volume) -> Volume:
    """The volume in HU: one that has nothing below 0 counts from air (0) over water (1000), as segmented bones do."""
    if volume.voxels.min() < 0:
        return volume
    return Volume(sitk.Cast(volume.image, sitk.sitkFloat32) - 1000.0, volume.path)


def _drawn(view: View, bone: NDArray[np.float32]) -> NDArray[np.uint8]:
    """The image with the outline of the model's projection."""
    # The display range is that of the neighbourhood, not of the open beam around it.
    shown = cv2.dilate((bone > 0).astype(np.uint8), np.ones((101, 101), np.uint8)) > 0
    low, high = np.percentile(view.attenuation[shown] if shown.any() else view.attenuation, [2, 98])
    grey = np.clip(255 - 255 * (view.attenuation - low) / max(float(high - low), 1e-6), 0, 255).astype(np.uint8)
    picture = cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR)
    outline, _ = cv2.findContours((bone > 0.04 * bone.max()).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(picture, outline, -1, (60, 220, 255), 2, cv2.LINE_AA)
    return np.asarray(picture, dtype=np.uint8)
