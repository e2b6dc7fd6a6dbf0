"""One exposure through the stream's own stages: what they believe, and how far it is from the truth."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fluoronav.geometry import Camera, rotation_distance_deg, transform_points
from fluoronav.lab.bench.cohort.given import given_case
from fluoronav.lab.bench.cohort.people import Person, Region
from fluoronav.lab.bench.cohort.render import Exposure, render
from fluoronav.lab.bench.cohort.scenes import GivenCt
from fluoronav.lab.target_error import target_error_mm
from fluoronav.stream.frame import Budget, FrameRecord, RegistrationResult
from fluoronav.stream.preprocessing.stage import AttenuationStage
from fluoronav.stream.registration.stage import RegistrationStage

Float = NDArray[np.float64]


@dataclass(frozen=True)
class StillSettings:
    """How a still is shown to the stages; all chosen."""

    searches: int = 2  # around the prior, then around the whole orbit and of the mirror image
    tracked_frames: int = 8  # after the first that is tracked: every bone has a pose of its own by then
    settling_frames: int = 8  # after a search that found something
    frame_ns: int = 66_666_667  # between two frames: 15 a second
    wrong_mm: float = 2.0  # a believed pose that errs by more across the ray at the target is wrong


SETTINGS = StillSettings()
_LONG_MS = 1e6


def measured(scene: str, seed: int, people: list[tuple[str, ...]]) -> dict[str, Any]:
    """Renders one exposure of a scene and registers it; what a worker does.

    Parameters
    ----------
    scene : str
    seed : int
    people : list of tuple
        As for :func:`fluoronav.lab.bench.cohort.render.render`.

    Returns
    -------
    dict
        See :func:`judged`; also ``cpu_s``, and ``T_camera_ct`` as a list where there is a pose.
    """
    begin = time.process_time()
    exposure = render(scene, seed, people)
    rendered = time.process_time()
    stage = _stage(exposure, seed)
    row = judged(exposure, shown(stage, exposure))
    return row | {"seed": seed, "render_cpu_s": rendered - begin, "registration_cpu_s": time.process_time() - rendered}


@dataclass
class Shown:
    """What the stages said of a still: the last frame, and the pose of every frame that was called tracking."""

    frame: FrameRecord
    believed: list[RegistrationResult]
    searches: int


def shown(stage: RegistrationStage, exposure: Exposure) -> Shown:
    """Shows a still until it has been tracked for some frames, or the searches are used up."""
    attenuation = AttenuationStage()
    attenuation.prepare(None, exposure.camera)
    stage.wait_for_background()
    stage.restart()
    out = Shown(FrameRecord.of_counts(exposure.counts), [], 0)
    others = 0

    def show(counts: NDArray) -> FrameRecord:
        k = out.searches + others + len(out.believed)
        frame = FrameRecord.of_counts(
            counts, seq=k, t_acq=(k + 1) * SETTINGS.frame_ns, bits=exposure.bits, last_status=out.frame.status
        )
        attenuation.process(frame, Budget(_LONG_MS))
        stage.process(frame, Budget(_LONG_MS))
        return frame

    while len(out.believed) <= SETTINGS.tracked_frames and others < SETTINGS.settling_frames:
        out.frame = frame = show(exposure.counts)
        if frame.status == "tracking" and frame.registration is not None:
            out.believed.append(frame.registration)
        elif frame.registration is not None:
            others += 1
        else:
            out.searches += 1
            if out.searches > SETTINGS.searches:
                # The stage has begun another search: a turned picture has it abandoned, and the next still begin anew.
                show(np.ascontiguousarray(exposure.counts[::-1, ::-1]))
                stage.wait_for_background()
                break
        stage.idle(frame, Budget(_LONG_MS))
        stage.wait_for_background()
    return out


def judged(exposure: Exposure, found: Shown) -> dict[str, Any]:
    """What was believed, against the truth.

    Returns
    -------
    dict
        ``scene``, ``person``, ``region``, ``present``; ``believed`` (the last frame is called tracking) and
        ``wrong_believed`` (any frame that was called so errs by more than 2 mm across the ray at the target, or has no
        right pose); ``status`` and ``reason`` of the last frame. Where there is a right pose and one was found:
        ``across_mm``, ``space_mm``, ``degrees`` and their 95 % bounds ``bound_mm``, ``bound_space_mm``,
        ``bound_degrees``; ``own``, the same for the pose of the target bone alone.
    """
    last, truth = found.frame.registration, exposure.T_camera_ct
    believed = found.frame.status == "tracking" and last is not None
    target = exposure.person.target_ct(exposure.region) if exposure.scene.present else None
    row: dict[str, Any] = {
        "scene": exposure.scene.name, "person": exposure.person.name, "region": exposure.region.name,
        "present": exposure.scene.present, "believed": believed, "status": found.frame.status,
        "reason": found.frame.status_reason, "searches": found.searches,
    }  # fmt: skip
    if target is None:
        row["wrong_believed"] = bool(found.believed)
    else:
        errors = [target_error_mm(r.T_camera_ct, truth, target)[0] for r in found.believed]
        row["wrong_believed"] = any(not e <= SETTINGS.wrong_mm for e in errors)
    if last is None:
        return row
    row["T_camera_ct"] = last.T_camera_ct.tolist()
    row["score"] = float(last.score)
    if target is not None:
        row |= errors_and_bounds(last, truth, target)
        name = exposure.person.structures.get(exposure.region.target, "")
        own = next((o.registration for o in found.frame.objects if o.name == name), None)
        if own is not None:
            row["own"] = errors_and_bounds(own, truth, target)
    return row


def errors_and_bounds(found: RegistrationResult, truth: Float, target_ct: Float) -> dict[str, float | None]:
    """Errors of a pose at the target, and its 95 % bounds."""
    off = transform_points(found.T_camera_ct, target_ct) - transform_points(truth, target_ct)
    return {
        "across_mm": target_error_mm(found.T_camera_ct, truth, target_ct)[0],
        "space_mm": float(np.linalg.norm(off)),
        "degrees": rotation_distance_deg(found.T_camera_ct, truth),
        "bound_mm": float(found.tre_image_mm),
        "bound_space_mm": float(found.tre_mm),
        "bound_degrees": rotation_bound_deg(found),
    }


def rotation_bound_deg(found: RegistrationResult) -> float | None:
    """95 % bound of the rotation's error, degrees; None where it is not known."""
    return float(found.turn_deg) if np.isfinite(found.turn_deg) else None


def _stage(exposure: Exposure, seed: int) -> RegistrationStage:
    kernels, slices = exposure.scene.given.kernels, exposure.scene.given.slices_mm
    turn = seed % max(len(kernels), len(slices), 1)
    return prepared(exposure.other, exposure.region, exposure.scene.given, turn, exposure.camera)


_STAGES: list[tuple[Any, RegistrationStage]] = []
_KEPT_STAGES = 2  # each holds its projectors and the views around its prior


def prepared(person: Person, region: Region, given: GivenCt, turn: int, camera: Camera) -> RegistrationStage:
    """The stage of a case; the last two are kept, since frames of a scene come after one another."""
    key = (person.name, region.name, given, turn, camera.cols)
    for kept, stage in _STAGES:
        if kept == key:
            return stage
    while len(_STAGES) >= _KEPT_STAGES:
        _STAGES.pop(0)[1].close()
    stage = RegistrationStage()
    stage.prepare(given_case(person, region, given, turn), camera)
    _STAGES.append((key, stage))
    return stage


@lru_cache(1)
def one_thread() -> None:
    """Keeps OpenCV to one thread, since every worker has a core."""
    import cv2

    cv2.setNumThreads(1)
