"""Registration of files, for `fluoronav register`: image and volume files in, a result for JSON out."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from fluoronav.case import CaseError, CtUnits, Hounsfield, Spread, Volume, read_volume, to_hounsfield
from fluoronav.dicom.xray_intensity import Response
from fluoronav.geometry import Camera, is_rigid
from fluoronav.imaging.projector import AttenuationGrid, Projector
from fluoronav.imaging.registration.handedness import reason_of_hand
from fluoronav.imaging.registration.model import SEGMENT_DEG, SEGMENT_MM, bone_grid, tissue_grid
from fluoronav.imaging.registration.offline import OfflineRegistration, OfflineResult, XrayView, reversed_view
from fluoronav.imaging.registration.view_grid import orbit_priors
from fluoronav.imaging.xray.file import XrayFileError, XrayFrame, read_xray
from fluoronav.imaging.xray.polarity import Polarity, opposite

Float = NDArray[np.float64]


@dataclass(frozen=True)
class GridLimits:
    """Size of the attenuation grids; all chosen."""

    reach_mm: float = 200.0  # of the tissue around the centre of the bones, to each side
    fade_mm: float = 1.0  # width over which the tissue fades out at the grid's faces
    min_spacing_mm: float = 0.3
    max_voxels: float = 20e6  # of the tissue grid


LIMITS = GridLimits()


class RegisterError(ValueError):
    """An input that cannot be registered; the text names the file and what is wrong."""


@dataclass(frozen=True)
class RegistrationRequest:
    """Files to register, and how.

    Attributes
    ----------
    volume : Path
    images : list of Path
        TIFF, PNG or DICOM, one per view.
    cameras : list of Path
        One file per image; if empty, the cameras are taken from the DICOM headers.
    init : Path or None
        JSON ``{"T_camera_ct": 4 x 4}``, the start of the first view; if None, it is taken from the DICOM header.
    auto : bool
        Search around the start, which may be wrong by 30 degrees, 100 mm in the plane and 60 mm in depth.
    orbit : bool
        Search at all orbital angles, too.
    labels : Path or None
        Label map of the volume.
    bones : tuple of int or Path
        The bones: labels, or volumes of bones that were segmented from `volume`. If there are several, each also gets a
        pose of its own.
    overlay : Path or None
        PNG file to write.
    frame : int
        Frame number in a multi-frame DICOM image, from 1.
    polarity : "counts" or "inverse", optional
        Whether stored values rise or fall with the detected X-rays; if None, as each image declares.
    intensity : "linear" or "log", optional
        Whether stored values of DICOM images are proportional to the X-rays or to their logarithm; if None, as each
        image declares.
    series : str or None
        SeriesInstanceUID, if the volume's folder or DICOMDIR holds several.
    units, bone_units : "hu", "shifted", "raw" or None
        Units of the values of `volume`, and of the volumes of `bones`; if None, as the file declares, or inferred.
    """

    volume: Path
    images: Sequence[Path]
    cameras: Sequence[Path] = ()
    init: Path | None = None
    auto: bool = False
    orbit: bool = False
    labels: Path | None = None
    bones: tuple[int | Path, ...] = ()
    overlay: Path | None = None
    frame: int = 1
    polarity: Polarity | None = None
    intensity: Response | None = None
    series: str | None = None
    units: CtUnits | None = None
    bone_units: CtUnits | None = None


def register_files(request: RegistrationRequest, progress: Callable[[str], None] = lambda text: None) -> dict[str, Any]:
    """Registers a volume to images.

    Parameters
    ----------
    request : RegistrationRequest
    progress : callable
        Called with a line of text for each step.

    Returns
    -------
    dict
        ``accepted``, ``reason``, ``ms``, ``notes`` (assumptions, as text) and ``views``: per image
        ``T_camera_ct`` (4 x 4), ``score``, ``sigma`` (deg, mm, camera axes), ``tre_mm``, ``tre_image_mm``,
        ``mirrored``, ``polarity``; with several bones ``bones``: per bone ``label`` or ``volume``, ``accepted``,
        ``reason`` and ``views``.

    Raises
    ------
    RegisterError, XrayFileError, CaseError, CameraError
    """
    if request.cameras and len(request.images) != len(request.cameras):
        raise RegisterError(
            f"{len(request.images)} images but {len(request.cameras)} cameras: give one camera file per image, in order"
        )
    if any(isinstance(b, int) for b in request.bones) != (request.labels is not None):
        raise RegisterError("--labels and labels as --bone go together: a label map, and which of its labels are bones")
    frames = [_read(p, request, request.polarity) for p in request.images]
    notes = [f"{frame.path}: {note}" for frame in frames for note in frame.notes]
    for note in notes:
        progress(note)
    cameras = [Camera.load(c) for c in request.cameras]
    views = _views(frames, cameras)
    ct, labels, bone_volumes = _volumes(request)
    segmented = ct.segmented
    inferred = [v.note for v in (ct, *bone_volumes.values()) if v.note]
    notes += inferred
    for note in inferred:
        progress(note)
    read = [ct.volume, *([labels] if labels else []), *(v.volume for v in bone_volumes.values())]
    for warning in (w for v in read for w in v.warnings):
        progress(f"WARNING {warning}")
    try:
        model, bones = _grids(ct.volume, labels, request.bones, bone_volumes)
    except ValueError as error:
        raise RegisterError(f"{request.volume}: {error}") from error
    registration = OfflineRegistration(model, bones[0], views, segmented=segmented)
    T_prior = _prior(request, frames, registration.centre_ct)
    start = time.perf_counter()
    result = _registered(request, registration, T_prior, progress)

    def fit_of(what: str, other_views: list[XrayView]) -> OfflineResult:
        progress(f"comparing with the images {what}")
        other = OfflineRegistration(model, bones[0], other_views, segmented=segmented)
        return _registered(request, other, T_prior, progress)

    # Metal is looked for where the picture as it is does not fit: at a low dose dense bone looks like it, too.
    if not result.accepted and not segmented and (bare := _without_metal(views, frames)) is not None:
        views = bare
        without = fit_of("without what looks like metal", views)
        result = without if without.accepted else result
    if not result.accepted:
        result = _with_cause(request, result, frames, views, cameras, segmented, fit_of)
    out: dict[str, Any] = {"accepted": result.accepted, "reason": result.reason, "ms": 0.0, "notes": notes}
    out["views"] = _rows(result, frames)
    if len(request.bones) > 1:
        out["bones"] = _of_each_bone(request, (model, bones[1:]), (views, frames), segmented, result, progress)
    out["ms"] = (time.perf_counter() - start) * 1000
    if request.overlay is not None:
        T = result.views[0].T_camera_ct
        cv2.imwrite(str(request.overlay), _overlay(views[0], Projector(bones[0]).render(T, views[0].camera)))
    return out


def _read(path: Path, request: RegistrationRequest, polarity: Polarity | None) -> XrayFrame:
    with_camera = bool(request.cameras)
    return read_xray(path, with_camera=with_camera, frame=request.frame, polarity=polarity, intensity=request.intensity)


def _of_each_bone(
    request: RegistrationRequest,
    grids: tuple[AttenuationGrid, list[AttenuationGrid]],
    images: tuple[list[XrayView], list[XrayFrame]],
    segmented: bool,
    result: OfflineResult,
    progress: Callable[[str], None],
) -> list[dict[str, Any]]:
    """Refines each bone from the pose of all bones; the motion of bones against one another is its prior."""
    (model, bones), (views, frames) = grids, images
    rows = []
    for bone, grid in zip(request.bones, bones, strict=True):
        progress(f"bone {bone}")
        own = OfflineRegistration(model, grid, views, segmented=segmented, start_sigma=(SEGMENT_DEG, SEGMENT_MM))
        of_bone = own.refine_near(result.views[0].T_camera_ct)
        rows.append(
            {
                "label": bone if isinstance(bone, int) else None,
                "volume": None if isinstance(bone, int) else str(bone),
                "accepted": result.accepted and of_bone.accepted,
                "reason": result.reason or of_bone.reason,
                "views": _rows(of_bone, frames),
            }
        )
    return rows


def _volumes(request: RegistrationRequest) -> tuple[Hounsfield, Volume | None, dict[Path, Hounsfield]]:
    """The CT, its label map, and the volumes of bones by file; all but the label map in HU."""
    ct = to_hounsfield(_volume(request), request.units, "--units")
    labels = None if request.labels is None else read_volume(request.labels)
    files = [b for b in request.bones if isinstance(b, Path)]
    bones = {b: to_hounsfield(read_volume(b), request.bone_units, "--bone-units") for b in files}
    return ct, labels, bones


def _volume(request: RegistrationRequest) -> Volume:
    if request.series is not None and not request.volume.is_dir() and request.volume.name.upper() != "DICOMDIR":
        raise RegisterError(
            f"{request.volume}: --series names one of a folder of DICOM files or of a DICOMDIR, which this is not"
        )
    try:
        return read_volume(request.volume, request.series)
    except CaseError as error:
        if "`ct_series`" not in str(error):
            raise
        # The case file's key is this command's option.
        raise RegisterError(str(error).replace("as `ct_series`", "with --series")) from error


def _registered(
    request: RegistrationRequest, registration: OfflineRegistration, T_prior: Float, progress: Callable[[str], None]
) -> OfflineResult:
    if not (request.auto or request.orbit):
        return registration.run(T_prior, progress)
    priors = orbit_priors(T_prior, registration.centre_ct) if request.orbit else [T_prior]
    return registration.search(priors, Spread(), progress)


def _with_cause(
    request: RegistrationRequest,
    result: OfflineResult,
    frames: list[XrayFrame],
    views: list[XrayView],
    cameras: list[Camera],
    segmented: bool,
    fit_of: Callable[[str, list[XrayView]], OfflineResult],
) -> OfflineResult:
    """A result that is not accepted, with the cause as its reason where the images fit inverted or mirrored."""
    if request.polarity is None:
        turned = [_read(f.path, request, opposite(f.polarity)) for f in frames]
        inverted = fit_of("turned over", _views(turned, cameras))
        if inverted.accepted:
            return replace(result, reason=_reason_inverted(frames, result, inverted))
    # Where a pose was found, its hand has been told (`OfflineRegistration`); else a pose of the mirror image tells it.
    if not segmented and result.hand is None:
        mirrored = fit_of("mirrored", [reversed_view(view) for view in views])
        if mirrored.accepted:
            reason = reason_of_hand("mirrored", len(views), result.fit, mirrored.fit)
            return replace(result, reason=reason, hand="mirrored")
    return result


def _reason_inverted(frames: list[XrayFrame], result: OfflineResult, turned: OfflineResult) -> str:
    taken: list[Polarity] = sorted({frame.polarity for frame in frames})
    what = "the picture looks" if len(frames) == 1 else "the pictures look"
    do = f"say --polarity {opposite(taken[0])}" if len(taken) == 1 else "say --polarity of each, one at a time"
    return (
        f"{what} inverted: turned over the model fits with {turned.fit:.2f}, as taken ({' and '.join(taken)}) with "
        f"{result.fit:.2f}: {do}"
    )


def _rows(result: OfflineResult, frames: list[XrayFrame]) -> list[dict[str, Any]]:
    return [
        {
            "image": str(frame.path),
            "T_camera_ct": e.T_camera_ct.tolist(),
            "score": e.score,
            "sigma": sigma.tolist(),
            "tre_mm": tre,
            "tre_image_mm": tre_image,
            "mirrored": frame.geometry is not None and frame.geometry.mirrored,
            "polarity": frame.polarity,
        }
        for frame, e, sigma, tre, tre_image in zip(
            frames, result.views, result.sigma, result.tre_mm, result.tre_image_mm, strict=True
        )
    ]


def _without_metal(views: list[XrayView], frames: list[XrayFrame]) -> list[XrayView] | None:
    """The views without what looks like metal or has no signal; None where no pixel does."""
    if all(np.array_equal(frame.anatomy_mask, frame.field_mask) for frame in frames):
        return None
    return [replace(view, field_mask=frame.anatomy_mask) for view, frame in zip(views, frames, strict=True)]


def _views(frames: list[XrayFrame], cameras: list[Camera]) -> list[XrayView]:
    views = []
    for k, frame in enumerate(frames):
        if cameras:
            camera = cameras[k]
            if frame.attenuation.shape != (camera.rows, camera.cols):
                rows, cols = frame.attenuation.shape
                raise RegisterError(
                    f"{frame.path}: is {rows} x {cols} pixels, {camera.name} says {camera.rows} x {camera.cols}"
                )
            frame.check_camera(camera)
        elif frame.geometry is not None:
            camera = frame.geometry.camera
        else:
            raise RegisterError(f"{frame.path}: has no header that describes the camera: give a file with --camera")
        views.append(XrayView(camera, frame.attenuation, frame.field_mask))
    return views


def _grids(
    ct: Volume, labels: Volume | None, bones: Sequence[int | Path], bone_volumes: dict[Path, Hounsfield]
) -> tuple[AttenuationGrid, list[AttenuationGrid]]:
    """Grids of the tissue, of all bones, and, if there are several, of each bone."""
    extent = np.ptp(ct.corners_ct(), axis=0)
    voxels = float(np.prod(np.minimum(extent, 2 * LIMITS.reach_mm)))
    spacing = max(min(ct.image.GetSpacing()), LIMITS.min_spacing_mm, (voxels / LIMITS.max_voxels) ** (1 / 3))
    parts = [((b,), []) if isinstance(b, int) else ((), [bone_volumes[b].volume]) for b in bones]
    together = bone_grid(ct, labels, sum((p[0] for p in parts), ()), spacing, [v for p in parts for v in p[1]])
    alone = [bone_grid(ct, labels, own, spacing, volumes) for own, volumes in parts] if len(parts) > 1 else []
    return tissue_grid(ct, together.centre_ct, LIMITS.reach_mm, spacing, LIMITS.fade_mm), [together, *alone]


def _prior(request: RegistrationRequest, frames: list[XrayFrame], centre_ct: Float) -> Float:
    if request.init is not None:
        return _read_init(request.init)
    geometry = frames[0].geometry
    if geometry is None:
        raise RegisterError(f"{frames[0].path}: says nothing of where the C-arm stood: give a start pose with --init")
    if not (request.auto or request.orbit):
        raise RegisterError(f"{frames[0].path}: the header's pose is only a prior: add --auto, or a start with --init")
    at_isocentre = np.eye(4)
    at_isocentre[:3, 3] = -centre_ct
    return geometry.T_camera_isocentre @ at_isocentre


def _read_init(path: Path) -> Float:
    try:
        T = np.array(json.loads(path.read_text())["T_camera_ct"], dtype=np.float64)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RegisterError(f'{path}: must hold {{"T_camera_ct": 4 x 4}} as JSON: {error!r}') from error
    if not is_rigid(T):
        raise RegisterError(f"{path}: T_camera_ct is not a rigid, right-handed 4 x 4 motion")
    return T


def _overlay(view: XrayView, bone: NDArray[np.float32]) -> NDArray[np.uint8]:
    """The image with the outline of the projected bones."""
    # The display range is that around the bones, not that of the open beam.
    around = cv2.dilate((bone > 0).astype(np.uint8), np.ones((101, 101), np.uint8)) > 0
    low, high = np.percentile(view.attenuation[around] if around.any() else view.attenuation, [2, 98])
    grey = np.clip(255 - 255 * (view.attenuation - low) / max(float(high - low), 1e-6), 0, 255).astype(np.uint8)
    picture = cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR)
    outline, _ = cv2.findContours((bone > 0.04 * bone.max()).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(picture, outline, -1, (60, 220, 255), 2, cv2.LINE_AA)
    return np.asarray(picture, dtype=np.uint8)


__all__ = ["RegisterError", "RegistrationRequest", "XrayFileError", "register_files"]
