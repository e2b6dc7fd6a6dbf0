"""Pictures that must not be believed: mirrored, of somebody else, of another part of the body, or of no patient at all.

Each goes through the stream's own search and acceptance, with the case of a patient whom it does not show. Pictures are
small, so that thousands can be shown.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from fluoronav.geometry import Camera
from fluoronav.lab.bench.cohort.hardware import Cylinder, hand, screws_and_rods
from fluoronav.lab.bench.cohort.motion import Motion
from fluoronav.lab.bench.cohort.people import Person, Region, person_of
from fluoronav.lab.bench.cohort.physics import AIR_HU, coded
from fluoronav.lab.bench.cohort.registering import SETTINGS as STILL
from fluoronav.lab.bench.cohort.registering import prepared, shown
from fluoronav.lab.bench.cohort.render import Body, Exposure, SetUp, picture_of, still_body, view
from fluoronav.lab.bench.cohort.running import Row, Task
from fluoronav.lab.bench.cohort.scenes import GivenCt, OnTable, Picture, Scene
from fluoronav.lab.target_error import target_error_mm
from fluoronav.paths import shipped

Float = NDArray[np.float64]
_STILL = Motion({}, None)


@dataclass(frozen=True)
class WrongSettings:
    """How such pictures are made; all chosen."""

    image_scale: float = 0.5  # of the shipped camera: 512 x 512
    every_px: float = 2.0
    screws: float = 0.25  # share of the pictures with screws and rods, where there is a label map
    hand: float = 0.15  # share with a hand
    aside_mm: tuple[float, float] = (110.0, 170.0)  # from the target's middle to where the picture is aimed
    in_a_row: int = 12  # pictures for one case after one another: each case has to be prepared


SETTINGS = WrongSettings()

KINDS: dict[str, str] = {
    "mirrored": "picture mirrored, or upside down and mirrored",
    "other-person": "another patient",
    "other-region": "another part of the same patient's body",
    "aside": "aimed 110 to 170 mm beside the target",
    "nobody": "no patient: hand, screws and rods, or the open beam",
    "real": "real fluoroscopy of somebody else's knee or wrist",
}
# What of a CT the registration is given.
GIVEN: dict[str, GivenCt] = {
    "": GivenCt(),
    "no label map": GivenCt(labels=False),
    "cube of 140 mm": GivenCt(cube_mm=140.0),
    "two vertebrae": GivenCt(vertebrae=2),
    "cube of 140 mm, no label map": GivenCt(labels=False, cube_mm=140.0),
}
# Beside the mirrored ones. Of the others the CT shows what the picture shows: a pose may be right.
_NEVER_RIGHT = ("other-person", "nobody", "real")


@dataclass(frozen=True)
class GivenCase:
    """What the registration is given: a person's region, and what of the CT."""

    person: Person
    region: Region
    given: GivenCt
    what: str


def real_pictures(data: Path) -> list[Path]:
    """Real frames of a data folder, of body parts that no CT of the cohort shows."""
    return sorted(path for part in ("knee", "wrist") for path in (data / part).glob("frame*.tif"))


def tasks(first: int, n: int, people: list[tuple[str, ...]], have: set[Task], real: bool = False) -> list[list[Task]]:
    """Kinds and seeds of `n` pictures from seed `first` without those of `have`; a unit for each case in a row.

    `real` says whether there are real pictures.
    """
    of_cases: dict[int, list[Task]] = {}
    for seed in range(first, first + n):
        task = _kind(seed, people, real), seed
        if task not in have:
            of_cases.setdefault(seed // SETTINGS.in_a_row, []).append(task)
    return list(of_cases.values())


def cases(people: list[tuple[str, ...]]) -> list[GivenCase]:
    """Every region of everybody in each of :data:`GIVEN`; without a label map in those that need none."""
    there = [(p, r) for p in map(person_of, people) for r in p.regions]
    return [
        GivenCase(p, r, given, what)
        for p, r in there
        for what, given in GIVEN.items()
        if r.target or not (given.labels or given.vertebrae)
    ]


def _case_of(seed: int, people: list[tuple[str, ...]]) -> GivenCase:
    every = cases(people)
    return every[seed // SETTINGS.in_a_row % len(every)]


def _kind(seed: int, people: list[tuple[str, ...]], real: bool) -> str:
    """Kinds in turns; where the data does not have one, the picture is of another person, or a mirrored one."""
    name = list(KINDS)[seed % len(KINDS)]
    case = _case_of(seed, people)
    everybody = [person_of(p) for p in people]
    if (name == "other-region" and len(case.person.regions) < 2) or (name == "real" and not real):
        name = "other-person"
    if name == "other-person" and len(everybody) < 2:
        name = "mirrored"
    return name


def measured_wrong(kind: str, seed: int, people: list[tuple[str, ...]], real: Sequence[Path] = ()) -> Row:
    """Makes one picture and shows it to the stages; what a worker does. `real` are files of real pictures.

    Returns
    -------
    dict
        ``scene`` (the kind), ``seed``, ``person`` and ``region`` in the beam, ``case_person``, ``case_region``,
        ``given`` (:data:`GIVEN`); ``believed`` (in any frame), ``wrong_believed`` (and by more than 2 mm across the ray
        where the picture is aimed, or the CT has no right pose); ``status`` and ``reason`` of the last frame;
        ``across_mm`` where there is a right pose and one was found; ``T_camera_ct`` of what was believed wrongly.
    """
    begin = time.process_time()
    exposure, case, aimed_ct = exposure_of(kind, seed, people, real)
    stage = prepared(case.person, case.region, case.given, 0, exposure.camera)
    found = shown(stage, exposure)
    row: Row = {
        "scene": kind, "seed": seed, "present": exposure.scene.present,
        "person": exposure.person.name if kind not in ("nobody", "real") else kind, "region": exposure.region.name,
        "case_person": case.person.name, "case_region": case.region.name, "given": case.what,
        "believed": bool(found.believed), "status": found.frame.status, "reason": found.frame.status_reason,
    }  # fmt: skip
    wrong = found.believed
    if exposure.scene.present:
        errors = [target_error_mm(r.T_camera_ct, exposure.T_camera_ct, aimed_ct)[0] for r in found.believed]
        wrong = [r for r, e in zip(found.believed, errors, strict=True) if not e <= STILL.wrong_mm]
        row |= {"across_mm": max(errors)} if errors else {}
    row["wrong_believed"] = bool(wrong)
    if wrong:
        row |= {"T_camera_ct": wrong[-1].T_camera_ct.tolist(), "score": float(wrong[-1].score)}
        row["bound_mm"] = float(wrong[-1].tre_image_mm)
    return row | {"cpu_s": time.process_time() - begin}


def exposure_of(
    kind: str, seed: int, people: list[tuple[str, ...]], real: Sequence[Path] = ()
) -> tuple[Exposure, GivenCase, Float]:
    """A picture of a kind, the case that it is shown for, and the point it is aimed at, LPS mm in the beam's CT."""
    case = _case_of(seed, people)
    rng = np.random.default_rng([seed, 35])
    person, region = _in_beam(kind, case, people, rng)
    picture = _picture(kind, rng)
    T = view(person.target_ct(region), picture.aside_mm, rng)
    shapes = _shapes(kind, person, region, T, rng)
    body = _nobody() if kind in ("nobody", "real") else still_body(person)
    set_up = SetUp.of(picture, rng)
    camera = _camera()
    counts, bits = picture_of(body, shapes, camera, T, picture, set_up, rng, SETTINGS.every_px)
    if picture.mirrored and rng.random() < 0.5:
        counts = np.asarray(cv2.rotate(counts, cv2.ROTATE_180), np.uint16)
    if kind == "real":
        counts, bits = _real(real[int(rng.integers(len(real)))], camera, rng), 8
    on_table = OnTable(other_person=kind in _NEVER_RIGHT)
    scene = Scene(kind, KINDS[kind], (region.name,), on_table=on_table, picture=picture)
    exposure = Exposure(scene, counts, bits, camera, T, T, person, case.person, region, _STILL)
    on_axis = person.target_ct(region) @ T[:3, :3].T + T[:3, 3]
    on_axis[:2] = 0
    return exposure, case, T[:3, :3].T @ (on_axis - T[:3, 3])


def _in_beam(
    kind: str, case: GivenCase, people: list[tuple[str, ...]], rng: np.random.Generator
) -> tuple[Person, Region]:
    there = [(p, r) for p in map(person_of, people) for r in p.regions]
    if kind == "other-person":
        there = [(p, r) for p, r in there if p.name != case.person.name]
    elif kind == "other-region":
        there = [(case.person, r) for r in case.person.regions if r.name != case.region.name]
    else:
        return case.person, case.region
    return there[int(rng.integers(len(there)))]


def _picture(kind: str, rng: np.random.Generator) -> Picture:
    aside = float(rng.uniform(*SETTINGS.aside_mm)) if kind == "aside" else 0.0
    return Picture(mirrored=kind == "mirrored", aside_mm=aside)


def _shapes(kind: str, person: Person, region: Region, T: Float, rng: np.random.Generator) -> list[Cylinder]:
    """Metal and a hand in some pictures; without a patient one of both, or none, in turns."""
    steel, fingers = rng.random(2) < (SETTINGS.screws, SETTINGS.hand)
    if kind == "nobody":
        what = int(rng.integers(3))
        steel, fingers = what == 0, what == 1
    shapes = screws_and_rods(person, region, 6, _STILL) if steel and region.target else []
    return shapes + (hand(T, rng) if fingers else [])


def _real(path: Path, camera: Camera, rng: np.random.Generator) -> NDArray[np.uint8]:
    """A real picture of 8 bits, turned by right angles and mirrored at random, as this C-arm's."""
    picture = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    if picture is None:
        raise ValueError(f"{path}: is no picture that OpenCV can read")
    turned = np.rot90(picture, int(rng.integers(4)))
    turned = np.ascontiguousarray(turned[:, ::-1] if rng.random() < 0.5 else turned)
    return np.asarray(cv2.resize(turned, (camera.cols, camera.rows), interpolation=cv2.INTER_AREA), np.uint8)


@lru_cache(1)
def _camera() -> Camera:
    return Camera.load(shipped("calibration/demo-carm.yaml")).scaled(SETTINGS.image_scale)


@lru_cache(1)
def _nobody() -> Body:
    """Air."""
    return Body(coded(np.full((2, 2, 2), AIR_HU)), np.zeros(3), 1.0)
