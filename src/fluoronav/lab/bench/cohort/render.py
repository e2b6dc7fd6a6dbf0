"""Renders a scene of the cohort: counts as a C-arm's panel gives them, and where the target bone truly is.

from pathlib import Path
from fluoronav.lab.bench.cohort import known_people, render
exposure = render("screws-6", 0, known_people(Path("../shared/data")))
exposure.counts, exposure.bits, exposure.camera, exposure.T_camera_ct, exposure.case
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field
from functools import lru_cache

import cv2
import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from fluoronav.case import Volume
from fluoronav.geometry import Camera, CArmPose
from fluoronav.lab.bench.cohort.hardware import Cylinder, add_shapes, hand, screws_and_rods
from fluoronav.lab.bench.cohort.motion import Motion, moved
from fluoronav.lab.bench.cohort.panel import Blade, Panel, as_video, counts_of
from fluoronav.lab.bench.cohort.people import VESSELS, Person, Region, person_of
from fluoronav.lab.bench.cohort.physics import (
    AIR_HU,
    BLOOD_HU,
    CONTRAST_HU,
    MATERIALS,
    Beam,
    Tube,
    coded,
    densities_g_cm3,
)
from fluoronav.lab.bench.cohort.rays import add_voxels, pixel_rays
from fluoronav.lab.bench.cohort.scenes import BY_NAME, Picture, Scene
from fluoronav.paths import cache_folder, shipped

Float = NDArray[np.float64]
_DENSITIES = densities_g_cm3()
_VERSION = "cohort 1"  # of the fine grids, for the cache's key


@dataclass(frozen=True)
class RenderSettings:
    """Sampling of the renderer, and how views are spread; all chosen."""

    grid_mm: float = 1.0  # of the voxels that rays cross; CTs are interpolated to it by cubic splines
    every_px: float = 2.0  # a ray for each block of so many pixels' side
    reach_mm: float = 620.0  # from the source to the middle of the view
    orbital_deg: float = 35.0  # the views: those of `bench registration`, nearly AP to oblique
    angular_deg: float = 12.0
    swivel_deg: float = 10.0
    shift_mm: float = 15.0
    depth_mm: float = 60.0
    strip_leak: float = 0.05  # of a thin blade at the panel's edge
    pitch_mm: float = 0.293  # of the panel's pixels, where the picture has `pitch_of_cols` columns
    pitch_of_cols: int = 1024


SETTINGS = RenderSettings()


@dataclass(frozen=True, eq=False)
class Exposure:
    """A rendered scene.

    Attributes
    ----------
    counts : ndarray of uint16 or uint8, shape (rows, cols)
    bits : int
        Stored bits of the counts.
    camera : Camera
    T_camera_ct : ndarray, shape (4, 4)
        True pose of the target bone: its place in the registration's CT to the camera, mm. Where the scene has no right
        pose (mirrored, another patient) it is that of the person in the beam.
    T_camera_table : ndarray, shape (4, 4)
        Pose of what has not moved since the CT.
    person, other : Person
        Who is in the beam, and whose CT the registration gets.
    region : Region
        Of `other`.
    motion : Motion
    """

    scene: Scene
    counts: NDArray[np.uint16] | NDArray[np.uint8] = field(repr=False)
    bits: int
    camera: Camera
    T_camera_ct: Float
    T_camera_table: Float
    person: Person
    other: Person
    region: Region
    motion: Motion


@dataclass(frozen=True, eq=False)
class Body:
    """What rays cross: a grid of voxel codes along the patient's axes."""

    codes: NDArray[np.int16] = field(repr=False)
    origin_ct: Float
    spacing_mm: float


def render(scene: Scene | str, seed: int, people: list[tuple[str, ...]], camera: Camera | None = None) -> Exposure:
    """Renders one exposure of a scene.

    Parameters
    ----------
    scene : Scene or str
        Or its name.
    seed : int
        Of view, motion and noise; the regions and people that a scene can have take turns with it.
    people : list of tuple
        Specifications, as from :func:`fluoronav.lab.bench.cohort.people.known_people`.
    camera : Camera, optional
        The shipped C-arm by default.

    Raises
    ------
    ValueError
        None of the people shows the scene.
    """
    scene = BY_NAME[scene] if isinstance(scene, str) else scene
    camera = camera or Camera.load(shipped("calibration/demo-carm.yaml"))
    person, region, other, other_region = cast(scene, seed, people)
    rng = np.random.default_rng([seed, sum(map(ord, scene.name))])
    on_table, picture = scene.on_table, scene.picture
    motion = moved(person, region, on_table.bend_deg_per_100mm, on_table.breath_mm, rng)
    T_table = view(person.target_ct(region), picture.aside_mm, rng)
    still = not on_table.bend_deg_per_100mm and not on_table.breath_mm
    body = still_body(person, on_table.contrast) if still else moved_body(person, motion, on_table.contrast)
    shapes = screws_and_rods(person, region, on_table.screws, motion) if on_table.screws else []
    shapes += hand(T_table, rng) if on_table.hand else []
    set_up = SetUp.of(picture, rng)
    counts, bits = picture_of(body, shapes, camera, T_table, picture, set_up, rng)
    T_target = T_table @ motion.of_bone(region.target)
    return Exposure(scene, counts, bits, camera, T_target, T_table, person, other, other_region, motion)


def cast(scene: Scene, seed: int, people: list[tuple[str, ...]]) -> tuple[Person, Region, Person, Region]:
    """Who is in the beam with which region, and whose CT the registration gets; in turns with the seed."""
    everybody = [person_of(tuple(p)) for p in people]
    needs_labels = bool(scene.on_table.screws or scene.on_table.bend_deg_per_100mm or scene.on_table.breath_mm)
    turns = [
        (p, r)
        for name in scene.regions
        for p in everybody
        for r in p.regions
        if r.name == name and (r.target or not needs_labels)
    ]
    if not turns:
        raise ValueError(f"scene {scene.name}: no CT shows {' or '.join(scene.regions)}")
    person, region = turns[seed % len(turns)]
    if not scene.on_table.other_person:
        return person, region, person, region
    others = [(p, r) for p in everybody for r in p.regions if p.name != person.name and r.target]
    if not others:
        raise ValueError(f"scene {scene.name}: needs the CTs of two people")
    return person, region, *others[(seed // len(turns)) % len(others)]


def view(target_ct: Float, aside_mm: float, rng: np.random.Generator) -> Float:
    """A random view of a target, ``T_camera_ct``, mm."""
    u = rng.uniform(-1, 1, 6)
    side = aside_mm * (1 if u[3] >= 0 else -1)
    at = target_ct + SETTINGS.shift_mm * u[:3] + [side, 0, 0]
    s = SETTINGS
    return CArmPose(
        (float(at[0]), float(at[1]), float(at[2])),
        s.reach_mm + s.depth_mm * rng.uniform(-1, 1),
        s.orbital_deg * u[3],
        s.angular_deg * u[4],
        s.swivel_deg * u[5],
    ).T_camera_ct()


@lru_cache(3)
def _resting(person: Person, grid_mm: float) -> tuple[sitk.Image, sitk.Image | None]:
    """CT (HU) and label map of a person on the renderer's grid along the patient's axes."""
    whole = person.surroundings or person.ct
    corners = whole.corners_ct()
    low, high = corners.min(0), corners.max(0)
    grid = sitk.Image([int(n) for n in np.floor((high - low) / grid_mm) + 1], sitk.sitkInt16)
    grid.SetOrigin(low.tolist())
    grid.SetSpacing([grid_mm] * 3)
    hu = _kept([whole, *([person.ct] if person.surroundings else [])], grid)
    labels = None
    if person.labels is not None:
        image = sitk.Cast(person.labels.image, sitk.sitkUInt8)
        labels = sitk.Resample(image, grid, sitk.Transform(), sitk.sitkNearestNeighbor, 0)
    return hu, labels


def _kept(volumes: list[Volume], grid: sitk.Image) -> sitk.Image:
    """Volumes on a grid, the later ones over the first; from the cache, since splines take ten seconds for a trunk."""
    digest = hashlib.sha256(f"{_VERSION} {grid.GetSize()} {grid.GetSpacing()} {grid.GetOrigin()}".encode())
    for v in volumes:
        digest.update(f"{v.image.GetOrigin()} {v.image.GetSpacing()} {v.image.GetDirection()}".encode())
        digest.update(np.ascontiguousarray(v.voxels).data)
    path = cache_folder("cohort") / f"{digest.hexdigest()[:24]}.npy"
    try:
        hu = sitk.GetImageFromArray(np.load(path, allow_pickle=False))
        hu.CopyInformation(grid)
        return hu
    except (OSError, ValueError, RuntimeError):  # not there, or broken off while it was written
        pass
    hu = _fine(volumes[0], grid)
    for part in volumes[1:]:
        ones = sitk.Cast(part.image, sitk.sitkUInt8) * 0 + 1
        inside = sitk.Resample(ones, grid, sitk.Transform(), sitk.sitkNearestNeighbor, 0) > 0
        hu = sitk.Mask(hu, inside == 0, 0) + sitk.Mask(_fine(part, grid), inside, 0)
    new = path.with_suffix(f".{os.getpid()}.npy")
    np.save(new, sitk.GetArrayViewFromImage(hu))
    new.replace(path)
    return hu


def _fine(volume: Volume, grid: sitk.Image) -> sitk.Image:
    image = sitk.Cast(sitk.Clamp(volume.image, sitk.sitkFloat32, AIR_HU, 3071), sitk.sitkFloat32)
    fine = sitk.Resample(image, grid, sitk.Transform(), sitk.sitkBSpline, float(AIR_HU), sitk.sitkFloat32)
    return sitk.Cast(sitk.Round(sitk.Clamp(fine, sitk.sitkFloat32, AIR_HU, 3071)), sitk.sitkInt16)


@lru_cache(4)
def still_body(person: Person, contrast: bool = True, grid_mm: float = SETTINGS.grid_mm) -> Body:
    """A person as in the CT."""
    return _body(*_resting(person, grid_mm), contrast)


def moved_body(person: Person, motion: Motion, contrast: bool = True, grid_mm: float = SETTINGS.grid_mm) -> Body:
    """A person who has moved since the CT."""
    hu, labels = _resting(person, grid_mm)
    assert motion.field is not None and labels is not None
    # A place that the field does not cover has not moved.
    fields = sitk.DisplacementFieldTransform(sitk.Cast(motion.field, sitk.sitkVectorFloat64))
    warped = sitk.Resample(hu, hu, fields, sitk.sitkLinear, float(AIR_HU))
    return _body(warped, sitk.Resample(labels, labels, fields, sitk.sitkNearestNeighbor, 0), contrast)


def _body(hu: sitk.Image, labels: sitk.Image | None, contrast: bool) -> Body:
    voxels = sitk.GetArrayFromImage(hu)
    vessels = None
    if labels is not None:
        vessels = np.isin(sitk.GetArrayViewFromImage(labels), [*VESSELS]) & (voxels > CONTRAST_HU)
        if not contrast:
            voxels[vessels], vessels = BLOOD_HU, None
    return Body(coded(voxels, vessels), np.array(hu.GetOrigin()), hu.GetSpacing()[0])


def transmitted(
    body: Body, shapes: list[Cylinder], camera: Camera, T_camera_ct: Float, beam: Beam, every_px: float
) -> NDArray[np.float32]:
    """Share of the open beam behind a body and shapes, shape (rows / every, cols / every)."""
    source, directions = pixel_rays(np.asarray(camera.K), camera.rows, camera.cols, T_camera_ct, every_px)
    rays = np.ascontiguousarray(directions.reshape(-1, 3))
    paths = np.zeros((len(MATERIALS), len(rays)), np.float32)
    add_voxels(body.codes, _DENSITIES, body.origin_ct, body.spacing_mm, source, rays, paths)
    add_shapes(shapes, source, rays, paths)
    return beam.transmitted(paths).reshape(directions.shape[:2])


@dataclass(frozen=True)
class SetUp:
    """How the C-arm is set for a scene: beam and blades."""

    beam: Beam = field(repr=False)
    blades: tuple[Blade, ...]

    @classmethod
    def of(cls, picture: Picture, rng: np.random.Generator) -> SetUp:
        """A random tube voltage, and blades that reach into the picture by a random part of what the scene allows."""
        beam = Beam.of(Tube(kvp=float(rng.uniform(70, 90))))
        blades = tuple(
            Blade(angle + float(rng.uniform(-2, 2)), 1 - 2 * share * float(rng.uniform(0.2, 1)))
            for angle, share in zip((180, 270, 0, 90), picture.blades, strict=True)
        )
        # A strip is all that there is at its edge.
        return cls(beam, tuple(b for b in blades if not (picture.strip and abs(b.angle_deg) < 45)))


def picture_of(
    body: Body, shapes: list[Cylinder], camera: Camera, T_camera_ct: Float, picture: Picture, set_up: SetUp,
    noise: np.random.Generator, every_px: float = SETTINGS.every_px,
) -> tuple[NDArray[np.uint16] | NDArray[np.uint8], int]:  # fmt: skip
    """Counts of one exposure, and their bits."""
    small = transmitted(body, shapes, camera, T_camera_ct, set_up.beam, every_px)
    full = np.asarray(cv2.resize(small, (camera.cols, camera.rows), interpolation=cv2.INTER_LINEAR), np.float32)
    panel = Panel(blade_leak=picture.blade_leak, pitch_mm=SETTINGS.pitch_mm * SETTINGS.pitch_of_cols / camera.cols)
    if picture.strip:
        full[:, round(camera.cols * (1 - picture.strip)) :] *= SETTINGS.strip_leak
    counts = counts_of(full, set_up.blades, panel, set_up.beam.noise_gain, noise)
    if picture.mirrored:
        counts = np.ascontiguousarray(counts[:, ::-1])
    return (as_video(counts, panel.dark), 8) if picture.video else (counts, panel.bits)
