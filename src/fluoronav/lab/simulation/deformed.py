"""A patient who is not the CT: a spine that bends, vertebra by vertebra, and a chest that breathes."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from fluoronav.case import Case, Volume
from fluoronav.geometry import inverse, moved_about, transform_points

Float = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Deformation:
    """How a patient differs from the CT.

    Attributes
    ----------
    bend_deg_per_100_mm : tuple of 3 float
        Rotation of the spine along its length, about the patient's axes x (flexion), y (side bending) and z (torsion).
    breath_mm : float
        Heart, diaphragm and front of the chest move so far towards the feet; what lies at the spine stays.
    """

    bend_deg_per_100_mm: tuple[float, float, float] = (0.0, 0.0, 0.0)
    breath_mm: float = 0.0


@dataclass(frozen=True, slots=True)
class FieldSettings:
    """How the field of motion is made; all chosen.

    Attributes
    ----------
    step_mm : float
        Between its grid points.
    rigid_mm, fade_mm : float
        Tissue moves with a vertebra up to `rigid_mm` from it, and less and less up to `fade_mm`.
    still_mm, free_mm : float
        Breathing begins `still_mm` from the spine, and is whole at `free_mm`.
    """

    step_mm: float = 3.0
    rigid_mm: float = 2.5
    fade_mm: float = 8.0
    still_mm: float = 20.0
    free_mm: float = 70.0


SETTINGS = FieldSettings()


def deformed(case: Case, target: str, how: Deformation) -> tuple[Case, dict[str, Float]]:
    """A patient whose spine has bent about one vertebra, and whose chest has breathed.

    Parameters
    ----------
    case : Case
        With vertebrae among its rigid structures.
    target : str
        The vertebra that stays where it is.
    how : Deformation

    Returns
    -------
    case : Case
        With a changed CT and surroundings; its label map is unchanged.
    T_ct_bone : dict of ndarray, shape (4, 4)
        From each vertebra's old place to its new one, by name, mm.
    """
    bones = [s for s in case.structures if s.label in case.rigid_labels]
    assert case.labels is not None
    centres = {b.name: np.mean(case.labels.extent_ct((b.label,)), axis=0) for b in bones}
    bend = np.deg2rad(how.bend_deg_per_100_mm) / 100
    T_ct_bone = {name: _bent(bend, centre, centres[target]) for name, centre in centres.items()}
    curve = np.array(sorted(centres.values(), key=lambda c: c[2]))

    def field(volume: Volume) -> sitk.DisplacementFieldTransform:
        corners = volume.corners_ct()
        low, step = corners.min(0), SETTINGS.step_mm
        size = np.ceil(np.ptp(corners, axis=0) / step).astype(int) + 1
        x, y, z = (low[a] + step * np.arange(size[a]) for a in range(3))
        moved = np.empty((*size[::-1], 3))
        for k, height in enumerate(z):
            points = np.stack([*np.meshgrid(x, y), np.full((size[1], size[0]), height)], axis=-1).reshape(-1, 3)
            moved[k] = _from_where(points, curve, centres[target], bend, how.breath_mm, bones, T_ct_bone).reshape(
                size[1], size[0], 3
            )
        image = sitk.GetImageFromArray(moved, isVector=True)
        image.SetOrigin(low.tolist())
        image.SetSpacing([step] * 3)
        return sitk.DisplacementFieldTransform(image)

    def warped(volume: Volume) -> Volume:
        image = sitk.Resample(volume.image, volume.image, field(volume), sitk.sitkLinear, -1024.0)
        return Volume(image, volume.path)

    around = None if case.surroundings is None else warped(case.surroundings)
    return replace(case, ct=warped(case.ct), surroundings=around), T_ct_bone


def _bent(bend: Float, centre: Float, still: Float) -> Float:
    """Motion of the spine's part around a point of it: constant curvature (rad/mm) from the part that stays."""
    along = centre[2] - still[2]
    return moved_about(centre, np.concatenate([along * bend, along / 2 * np.cross(bend, centre - still)]))


def _from_where(
    points: Float, curve: Float, still: Float, bend: Float, breath_mm: float, bones, T_ct_bone: dict[str, Float]
) -> Float:
    """Shift from points of one height, shape (n, 3), to where in the CT their tissue comes from, mm."""
    height = points[0, 2]
    centre = np.array([*(np.interp(height, curve[:, 2], curve[:, a]) for a in range(2)), height])
    shift = transform_points(inverse(_bent(bend, centre, still)), points) - points
    away = np.hypot(points[:, 0] - centre[0], points[:, 1] - centre[1])
    free = np.clip((away - SETTINGS.still_mm) / (SETTINGS.free_mm - SETTINGS.still_mm), 0, 1)
    shift[:, 2] += breath_mm * free * free * (3 - 2 * free)
    total, weights, of_bones = np.zeros(len(points)), [], []
    for bone in bones:
        origin = transform_points(inverse(T_ct_bone[bone.name]), points)
        distances = np.empty((len(points), 4))
        bone.distances(origin, distances)
        weight = np.clip((SETTINGS.fade_mm - distances[:, 0]) / (SETTINGS.fade_mm - SETTINGS.rigid_mm), 0, 1)
        total += weight
        weights.append(weight)
        of_bones.append(origin - points)
    scale = 1 / np.maximum(total, 1)
    shift *= np.maximum(1 - total, 0)[:, None]
    for weight, own in zip(weights, of_bones, strict=True):
        shift += (weight * scale)[:, None] * own
    return shift
