"""How a patient on the table differs from the CT: a spine that bends, a chest that breathes.

Every bone of the spine moves as a rigid body; between them the tissue follows smoothly. Fields are given backwards,
from a place in the patient on the table to the place in the CT that has moved there, so that nothing is inverted and
a bone's voxels move exactly by its own pose.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt, gaussian_filter, map_coordinates

from fluoronav.geometry import inverse, moved_about
from fluoronav.lab.bench.cohort.people import RIBS, VERTEBRAE, Person, Region

Float = NDArray[np.float64]

_STILL_LABELS = (*VERTEBRAE, 77, 78)  # what breathing leaves at rest


@dataclass(frozen=True)
class MotionSettings:
    """Shape of the fields; all chosen."""

    grid_mm: float = 4.0  # of the field
    near_mm: float = 1.0  # added to a distance: within a bone its own motion has all but 1e-4 of the weight
    power: float = 4.0  # of the distance in the weights: a bone's motion fades out within its own size
    rest_mm: float = 6.0  # around the spine, where nothing breathes
    free_mm: float = 60.0  # distance from the spine at which tissue breathes fully
    wall_mm: float = 35.0  # depth of the chest wall, which rises as the organs descend
    rise: float = 0.6  # of the chest wall in front, towards the head and to the front, as a share of the organs' way


SETTINGS = MotionSettings()


@dataclass(frozen=True)
class Motion:
    """A patient who has moved since the CT.

    Attributes
    ----------
    T_ct_bone : dict of int to ndarray, shape (4, 4)
        By label: from a bone's place in the CT to its place on the table, mm. Bones that it lacks have not moved.
    field : SimpleITK.Image or None
        Vectors from places on the table to places in the CT, mm; None where nothing has moved.
    """

    T_ct_bone: dict[int, Float]
    field: sitk.Image | None

    def of_bone(self, label: int) -> Float:
        """Pose of a bone on the table relative to the CT, shape (4, 4), mm."""
        return self.T_ct_bone.get(label, np.eye(4))


def moved(
    person: Person, region: Region, bend_deg_per_100mm: float, breath_mm: float, rng: np.random.Generator
) -> Motion:
    """A bent spine and a breath.

    Parameters
    ----------
    person : Person
        With a label map.
    region : Region
        Of the target. The spine bends about the bone below it, so that the target has moved, too.
    bend_deg_per_100mm : float
        About a random axis across the spine.
    breath_mm : float
        Way of the diaphragm.
    rng : numpy.random.Generator

    Returns
    -------
    Motion
    """
    if not bend_deg_per_100mm and not breath_mm:
        return Motion({}, None)
    assert person.labels is not None
    coarse = _coarse_labels(person.labels.image)
    labels = sitk.GetArrayFromImage(coarse)
    poses = bent_poses(person, region, bend_deg_per_100mm, rng.uniform(0, 2 * np.pi)) if bend_deg_per_100mm else {}
    places = _places_ct(coarse)
    vectors = np.zeros((*labels.shape, 3))
    if poses:
        vectors += _bend(labels, coarse, places, poses)
    if breath_mm:
        vectors += _breath(person, labels, coarse, places + vectors, breath_mm)
    field = sitk.GetImageFromArray(vectors, isVector=True)
    field.CopyInformation(coarse)
    return Motion(poses, field)


def bent_poses(person: Person, region: Region, deg_per_100mm: float, around_rad: float) -> dict[int, Float]:
    """Pose of every vertebra of a spine that is bent to a circle.

    Parameters
    ----------
    person : Person
    region : Region
        The vertebra below its target stays where it was; so does the pelvis where it is the target.
    deg_per_100mm : float
    around_rad : float
        Direction of the bend: 0 about the axis to the patient's left, a quarter about that to the back.

    Returns
    -------
    dict of int to ndarray, shape (4, 4)
        By label, mm.
    """
    assert person.labels is not None
    there = [n for n in VERTEBRAE if (person.labels.voxels == n).any()]
    middles = {n: np.mean(person.bone_points_ct(n), 0) for n in there}
    still = max((n for n in there if n < region.target), default=region.target)
    axis = np.array([np.cos(around_rad), np.sin(around_rad), 0.0])
    per_mm = np.deg2rad(deg_per_100mm) / 100
    poses: dict[int, Float] = {still: np.eye(4)}
    # From one bone to the next the motion is a turn about the disc between them.
    for order in ([n for n in there if n > still], [n for n in reversed(there) if n < still]):
        last = still
        for n in order:
            gap = middles[n] - middles[last]
            turn = per_mm * float(np.linalg.norm(gap)) * (1 if n > last else -1)
            between = moved_about((middles[n] + middles[last]) / 2, np.concatenate([turn * axis, np.zeros(3)]))
            poses[n] = poses[last] @ between
            last = n
    return poses | ({77: poses[25], 78: poses[25]} if 25 in poses else {})  # the hips are joined to the sacrum


def _coarse_labels(image: sitk.Image) -> sitk.Image:
    """The label map along the patient's axes, on the field's grid, with room around it."""
    image = sitk.DICOMOrient(image, "LPS")
    room = 40.0
    size = np.array(image.GetSize()) * image.GetSpacing() + 2 * room
    out = sitk.Image([int(n) for n in np.ceil(size / SETTINGS.grid_mm)], sitk.sitkUInt8)
    out.SetSpacing([SETTINGS.grid_mm] * 3)
    out.SetOrigin((np.array(image.GetOrigin()) - room).tolist())
    return sitk.Resample(sitk.Cast(image, sitk.sitkUInt8), out, sitk.Transform(), sitk.sitkNearestNeighbor, 0)


def _places_ct(grid: sitk.Image) -> Float:
    """Centres of a grid's voxels, LPS mm, shape (z, y, x, 3)."""
    axes = [o + s * np.arange(n) for o, s, n in zip(grid.GetOrigin(), grid.GetSpacing(), grid.GetSize(), strict=True)]
    z, y, x = np.meshgrid(*axes[::-1], indexing="ij")
    return np.stack([x, y, z], -1)


def _distance_image(mask: NDArray[np.bool_], grid: sitk.Image) -> sitk.Image:
    """Distance to a mask, mm; 0 inside and up to a voxel outside, so that a bone is not cut at its coarse surface."""
    far = distance_transform_edt(~mask, sampling=SETTINGS.grid_mm)
    image = sitk.GetImageFromArray(np.maximum(np.asarray(far) - SETTINGS.grid_mm, 0).astype(np.float32))
    image.CopyInformation(grid)
    return image


def _bend(labels: NDArray, grid: sitk.Image, places: Float, poses: dict[int, Float]) -> Float:
    """Vectors back to the CT: the bones' rigid motions, blended by the distance to each bone where it now is."""
    total, vectors = np.zeros(labels.shape), np.zeros(places.shape)
    ribs_and_rest = float(np.hypot(*(np.ptp(places.reshape(-1, 3), 0)[:2])))
    for label, T in poses.items():
        mask = labels == label
        if not mask.any():
            continue
        back = inverse(T)
        at_rest = _distance_image(mask, grid)
        transform = sitk.AffineTransform(3)
        transform.SetMatrix(back[:3, :3].ravel().tolist())
        transform.SetTranslation(back[:3, 3].tolist())
        away = sitk.GetArrayFromImage(sitk.Resample(at_rest, grid, transform, sitk.sitkLinear, ribs_and_rest))
        weight = 1 / (away + SETTINGS.near_mm) ** SETTINGS.power
        total += weight
        vectors += weight[..., None] * (places @ (back[:3, :3] - np.eye(3)).T + back[:3, 3])
    return vectors / total[..., None]


def _breath(person: Person, labels: NDArray, grid: sitk.Image, in_ct: Float, breath_mm: float) -> Float:
    """Vectors back to the CT for a breath: organs go down, the chest wall goes up and to the front, the spine rests.

    `in_ct` are the places in the CT before the breath, where label map and CT say what there is.
    """
    spine = np.isin(labels, _STILL_LABELS)
    hu = sitk.Resample(sitk.Cast(person.ct.image, sitk.sitkFloat32), grid, sitk.Transform(), sitk.sitkLinear, -1024.0)
    body = sitk.BinaryFillhole(sitk.BinaryMorphologicalOpening(hu > -300, [2] * 3))
    inside = np.asarray(distance_transform_edt(sitk.GetArrayFromImage(body) > 0, sampling=SETTINGS.grid_mm))
    away = np.asarray(distance_transform_edt(~spine, sampling=SETTINGS.grid_mm))
    free = _smooth_step((away - SETTINGS.rest_mm) / (SETTINGS.free_mm - SETTINGS.rest_mm))
    wall = _smooth_step(1 - inside / SETTINGS.wall_mm)
    wall = np.maximum(wall, np.isin(labels, [*RIBS]))
    wall = np.asarray(sitk.GetArrayFromImage(sitk.DiscreteGaussian(sitk.GetImageFromArray(wall), [4.0] * 3)))
    # Ribs turn about their joints at the spine: what lies in front of it rises most.
    middle = _places_ct(grid)[spine][:, 1].mean() if spine.any() else 0.0
    in_front = np.clip((middle - _places_ct(grid)[..., 1]) / 150, 0, 1)
    forward = np.zeros(in_ct.shape)
    forward[..., 2] = breath_mm * free * (SETTINGS.rise * wall * in_front - (1 - wall))
    forward[..., 1] = -breath_mm * free * SETTINGS.rise * wall * in_front
    return _smoothed(-_sampled(forward, grid, in_ct))


def _sampled(vectors: Float, grid: sitk.Image, places_ct: Float) -> Float:
    """Vectors of a grid at other places, shape (z, y, x, 3)."""
    at = (places_ct - np.array(grid.GetOrigin())) / np.array(grid.GetSpacing())
    at = np.moveaxis(at[..., ::-1], -1, 0)
    return np.stack([map_coordinates(vectors[..., k], at, order=1, mode="nearest") for k in range(3)], -1)


def _smoothed(vectors: Float) -> Float:
    return np.stack([gaussian_filter(vectors[..., k], 1.0) for k in range(3)], -1)


def _smooth_step(x: Float) -> Float:
    x = np.clip(x, 0, 1)
    return x * x * (3 - 2 * x)
