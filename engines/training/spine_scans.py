"""Pieces of CT-like scans with their labels, made from label maps at random, for the network of the spine.

The idea is SynthSeg's (B. Billot et al., Medical Image Analysis 86, 2023): shapes come from label maps, and everything
else (pose, deformation, HU of each tissue, noise, slice thickness, the scan's ends) is drawn anew for each piece. Where
a real CT belongs to a label map, a part of the pieces keeps its texture, with HU moved for each tissue.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy import ndimage

from fluoronav.planning.anatomy import vocabulary

Float32, UInt8, Bool = NDArray[np.float32], NDArray[np.uint8], NDArray[np.bool_]

CLASSES = ("background", "vertebra", "bone")
SPACING_MM, SIDE = 2.0, 64  # of the pieces
NOT_ASKED = 255  # voxels whose class nobody knows
_FINE_MM = 1.5  # of the label maps
# Codes of tissue; 0 is outside the scan. Organs and vessels of a label map follow from FIRST_ORGAN on.
AIR, LUNG, FAT, MUSCLE, BRIGHT, DISC, CANAL = 1, 2, 3, 4, 5, 6, 7
TRABECULAR, CORTICAL, OTHER_TRABECULAR, OTHER_CORTICAL, UNKNOWN_BONE = 8, 9, 10, 11, 12
FIRST_ORGAN, _MOST_CODES = 20, 256
# Range of the mean HU of a tissue; from air and fat, which a calibrated CT gives alike, to bone, which varies most.
_HU = {
    AIR: (-1010, -960), LUNG: (-900, -600), FAT: (-125, -70), MUSCLE: (10, 80), BRIGHT: (60, 250), DISC: (40, 130),
    CANAL: (0, 60), UNKNOWN_BONE: (100, 500),
}  # fmt: skip
_TRABECULAR_HU, _CORTICAL_MORE_HU = (40, 350), (80, 550)
_ORGAN_HU, _VESSEL_HU = (0, 160), (20, 380)


@dataclass(frozen=True)
class LabelMap:
    """A label map that pieces are made from.

    Attributes
    ----------
    codes : ndarray of uint8, shape (z, y, x)
        Of tissue, voxels of 1.5 mm, axes along the patient's (LPS).
    hu : ndarray of float32 or None
        The CT on the same grid; None where only labels are there.
    vertebra_points : ndarray, shape (n, 3)
        Some voxels of vertebrae, z, y, x.
    vessels : frozenset of int
        Codes of vessels.
    """

    codes: UInt8
    hu: Float32 | None
    vertebra_points: np.ndarray
    vessels: frozenset[int]


def chest(data: Path) -> LabelMap:
    """The chest CT with its labels."""
    labels, ct = (sitk.DICOMOrient(sitk.ReadImage(str(data / f"chest/{n}.nii.gz")), "LPS") for n in ("labels", "ct"))
    values = _fine(labels, nearest=True).astype(np.uint8)
    hu = _fine(ct, nearest=False)
    kinds = {label: s.kind for label, s in vocabulary().items() if label < 256}
    codes = np.select([hu < -600, hu < -30, hu < 110, hu < 220], [AIR, FAT, MUSCLE, BRIGHT], UNKNOWN_BONE)
    codes = codes.astype(np.uint8)
    vertebra = np.isin(values, [k for k, kind in kinds.items() if kind == "vertebra"])
    other = np.isin(values, [k for k, kind in kinds.items() if kind in ("rib", "bone")])
    vessels = set()
    for k, label in enumerate(n for n in np.unique(values) if n and not np.isin(n, values[vertebra | other])):
        codes[values == label] = FIRST_ORGAN + k
        vessels |= {FIRST_ORGAN + k} if kinds.get(int(label)) == "vessel" else set()
    lung = np.isin(values, [k for k, s in vocabulary().items() if s.name.startswith("lung")])
    codes[lung] = LUNG
    # The rim of a vertebra that its label leaves out is background, as the label says; other bright voxels may be bone.
    rim = ndimage.binary_dilation(vertebra, iterations=4) & (codes == UNKNOWN_BONE)
    codes[rim] = BRIGHT
    _draw_bones(codes, vertebra, other)
    return _label_map(codes, hu, vertebra, frozenset(vessels))


def mask_alone(path: Path) -> LabelMap:
    """Vertebrae drawn by hand, without a CT; what is around them is made up for each piece."""
    mask = sitk.DICOMOrient(sitk.ReadImage(str(path)), "LPS")
    vertebra = np.pad(_fine(mask, nearest=True) > 0, 24)
    codes = np.zeros(vertebra.shape, np.uint8)
    _draw_bones(codes, vertebra, np.zeros_like(vertebra))
    return _label_map(codes, None, vertebra, frozenset())


def _draw_bones(codes: np.ndarray, vertebra: np.ndarray, other: np.ndarray) -> None:
    """Discs, canal, and bones with a shell of one voxel."""
    closed = ndimage.binary_closing(vertebra, np.ones((9, 1, 1)))
    free = np.isin(codes, (0, MUSCLE, BRIGHT, FAT, UNKNOWN_BONE))
    codes[closed & ~vertebra & free] = DISC
    canal = np.stack([ndimage.binary_fill_holes(plane) for plane in closed]) & ~closed
    codes[canal & free] = CANAL
    for mask, inner, shell in ((vertebra, TRABECULAR, CORTICAL), (other, OTHER_TRABECULAR, OTHER_CORTICAL)):
        codes[mask] = shell
        codes[ndimage.binary_erosion(mask)] = inner


def _label_map(codes: np.ndarray, hu: np.ndarray | None, vertebra: np.ndarray, vessels: frozenset[int]) -> LabelMap:
    points = np.argwhere(vertebra)
    hu = None if hu is None else hu.astype(np.float32)
    return LabelMap(codes, hu, points[:: max(len(points) // 5000, 1)], vessels)


def _fine(image: sitk.Image, nearest: bool) -> np.ndarray:
    size = [int(n * s / _FINE_MM) for n, s in zip(image.GetSize(), image.GetSpacing(), strict=True)]
    out = sitk.Resample(
        image, size, sitk.Transform(), sitk.sitkNearestNeighbor if nearest else sitk.sitkLinear, image.GetOrigin(),
        [_FINE_MM] * 3, image.GetDirection(), 0.0 if nearest else -1000.0,
    )  # fmt: skip
    return sitk.GetArrayFromImage(out)


def piece(source: LabelMap, rng: np.random.Generator) -> tuple[Float32, UInt8]:
    """One piece.

    Returns
    -------
    hu : ndarray of float32, shape (64, 64, 64)
        NaN outside the scan.
    classes : ndarray of uint8, shape (64, 64, 64)
        Indices of :data:`CLASSES`, or :data:`NOT_ASKED`.
    """
    places = _places(source, rng)
    codes = ndimage.map_coordinates(source.codes, places, order=0, mode="constant", cval=0)
    real = None
    if source.hu is not None:
        real = ndimage.map_coordinates(source.hu, places, order=1, mode="nearest")
    else:
        codes = _with_surroundings(codes, rng)
    asked = np.zeros(_MOST_CODES, np.uint8)
    asked[[TRABECULAR, CORTICAL]], asked[[OTHER_TRABECULAR, OTHER_CORTICAL]] = 1, 2
    asked[[0, UNKNOWN_BONE]] = NOT_ASKED
    classes = asked[codes]
    hu = _real(real, codes, source.vessels, rng) if real is not None and rng.random() < 0.6 else None
    if hu is None:
        hu = _made_up(codes, source.vessels, rng)
    hu = _scanned(hu, rng)
    outside = (codes == 0) | _cut_off(rng)
    hu[outside], classes[outside] = np.nan, NOT_ASKED
    return hu, classes


def _places(source: LabelMap, rng: np.random.Generator) -> Float32:
    """Where each voxel of a piece lies in the label map: z, y, x in its voxels, shape (3, 64, 64, 64)."""
    shape = np.array(source.codes.shape)
    if rng.random() < 0.85:
        centre = source.vertebra_points[rng.integers(len(source.vertebra_points))] + rng.uniform(-18, 18, 3)
    else:
        centre = rng.uniform(0.1, 0.9, 3) * shape
    angles = np.deg2rad(np.clip(rng.normal(0, 9, 3), -25, 25))
    turn = np.eye(3)
    for axis, angle in enumerate(angles):
        a, b = [k for k in range(3) if k != axis]
        one = np.eye(3)
        one[a, a] = one[b, b] = np.cos(angle)
        one[a, b], one[b, a] = -np.sin(angle), np.sin(angle)
        turn = turn @ one
    sizes = np.exp(rng.normal(0, 0.13) + rng.normal(0, 0.06, 3))
    if rng.random() < 0.5:
        sizes[2] *= -1  # a mirrored vertebra is one, too
    step = (np.arange(SIDE) - (SIDE - 1) / 2) * SPACING_MM / _FINE_MM
    at = np.stack(np.meshgrid(step, step, step, indexing="ij")).astype(np.float32)
    at = np.tensordot((turn / sizes[:, None]).astype(np.float32), at, 1)
    at += centre.astype(np.float32)[:, None, None, None]
    for knots, most_mm in ((4, 7.0), (9, 2.0)):
        field = rng.normal(0, rng.uniform(0, most_mm / 2) / _FINE_MM, (3, knots, knots, knots)).astype(np.float32)
        at += np.stack([_enlarged(one) for one in field])
    return at


def _resized(values: Float32, weights: list[Float32]) -> Float32:
    """Each axis by its weights, of shape (new, old)."""
    for axis, one in enumerate(weights):
        values = np.moveaxis(np.tensordot(one, values, (1, axis)), 0, axis)
    return np.ascontiguousarray(values)


def _linear(old: int, new: int, *, ends_meet: bool) -> Float32:
    """Weights that interpolate linearly from `old` values to `new`.

    Where the ends meet, the first and last values stay at the ends; else cells of equal size fill the same length.
    """
    at = np.linspace(0, old - 1, new) if ends_meet else (np.arange(new) + 0.5) * old / new - 0.5
    return np.maximum(1 - np.abs(np.clip(at, 0, old - 1)[:, None] - np.arange(old)), 0).astype(np.float32)


def _means(old: int, new: int) -> Float32:
    """Weights of the mean of all of `old` cells that lie in each of `new` cells, wholly or in part."""
    first, end = np.arange(new) * old // new, -(-(np.arange(new) + 1) * old // new)
    inside = (np.arange(old) >= first[:, None]) & (np.arange(old) < end[:, None])
    return (inside / inside.sum(1, keepdims=True)).astype(np.float32)


def _enlarged(values: Float32) -> Float32:
    return _resized(values, [_linear(n, SIDE, ends_meet=True) for n in values.shape])


def _smooth_noise(rng: np.random.Generator, knots: int) -> Float32:
    """Smooth random numbers with a standard deviation of about 1."""
    return 1.6 * _enlarged(rng.normal(0, 1, (knots, knots, knots)).astype(np.float32))


def _with_surroundings(codes: UInt8, rng: np.random.Generator) -> UInt8:
    """Fat, muscles, organs, gas and bones around vertebrae that come without."""
    empty = codes == 0
    near = ndimage.distance_transform_edt(~np.isin(codes, (TRABECULAR, CORTICAL))) * SPACING_MM
    noise = _smooth_noise(rng, int(rng.integers(5, 11)))
    kinds = [FAT, MUSCLE, *(FIRST_ORGAN + k for k in range(5))]
    edges = np.sort(rng.normal(0, 1, len(kinds) - 1))
    around = np.array(rng.permutation(kinds), np.uint8)[np.searchsorted(edges, noise)]
    around = np.where((near < 20) & (around >= FIRST_ORGAN), MUSCLE, around)
    gas = _smooth_noise(rng, int(rng.integers(5, 9))) > rng.uniform(1.2, 3)
    around[gas & (near > 25)] = AIR
    if rng.random() < 0.7:
        # Sheets and rods of bone: where one or two smooth fields are nearly 0.
        sheet = np.abs(_smooth_noise(rng, int(rng.integers(3, 7)))) / rng.uniform(0.1, 0.3)
        if rng.random() < 0.5:
            sheet = np.hypot(sheet, np.abs(_smooth_noise(rng, int(rng.integers(3, 7)))) / rng.uniform(0.1, 0.3))
        bone = (sheet < 1) & (near > 9)
        around[bone], around[bone & (sheet < 0.6)] = OTHER_CORTICAL, OTHER_TRABECULAR
    if rng.random() < 0.4:  # the end of the body
        y = np.arange(SIDE)[None, :, None] + 4 * _smooth_noise(rng, 4)
        around[(y > SIDE - rng.uniform(0, 20)) & (near > 12)] = AIR
    return np.where(empty, around, codes)


def _made_up(codes: UInt8, vessels: frozenset[int], rng: np.random.Generator) -> Float32:
    """HU drawn for each tissue, with its texture."""
    mean, spread = np.zeros(_MOST_CODES, np.float32), rng.uniform(3, 25, _MOST_CODES).astype(np.float32)
    for code in range(1, _MOST_CODES):
        low, high = _HU.get(code, _VESSEL_HU if code in vessels else _ORGAN_HU)
        mean[code] = rng.uniform(low, high)
    for inner, shell in ((TRABECULAR, CORTICAL), (OTHER_TRABECULAR, OTHER_CORTICAL)):
        mean[inner] = rng.uniform(*_TRABECULAR_HU)
        mean[shell] = mean[inner] + rng.uniform(*_CORTICAL_MORE_HU)
        spread[[inner, shell]] = rng.uniform(10, 90, 2)
    texture = 3 * _mean_of_27(rng.standard_normal(codes.shape, np.float32))
    return mean[codes] + spread[codes] * texture


def _mean_of_27(values: Float32) -> Float32:
    """Of each voxel and its neighbours; beyond the edge there are zeros."""
    return ndimage.uniform_filter(values, 3, mode="constant")


def _real(hu: Float32, codes: UInt8, vessels: frozenset[int], rng: np.random.Generator) -> Float32:
    """The real CT, each tissue brighter or darker, bone denser or thinner."""
    shift = rng.normal(0, 12, _MOST_CODES).astype(np.float32)
    shift[list(vessels)] = rng.normal(-40, 90, len(vessels))
    shift[[AIR, LUNG, FAT]] /= 2
    gain = float(np.exp(rng.normal(0, 0.3)))
    return hu + (gain - 1) * np.maximum(hu - 120, 0) + _mean_of_27(shift[codes])


def _scanned(hu: Float32, rng: np.random.Generator) -> Float32:
    """What a scanner makes of it: thick slices or coarse voxels, noise, a little shading."""
    thick = float(rng.choice([1.0, 1.0, rng.uniform(1.0, 2.5)]))
    along = float(rng.choice([1.0, rng.uniform(1.0, 2.5), rng.uniform(1.0, 2.5)]))
    if max(thick, along) > 1.05:
        size = [round(SIDE / f) for f in (along, thick, thick)]
        between = _resized(hu, [_linear(SIDE, n, ends_meet=False) for n in size])
        coarse = 0.5 * between + 0.5 * _resized(hu, [_means(SIDE, n) for n in size])
        coarse += float(rng.uniform(0, 45)) * rng.standard_normal(size, np.float32)
        hu = _resized(coarse, [_linear(n, SIDE, ends_meet=False) for n in size])
    if rng.random() < 0.6:
        hu = hu + float(rng.uniform(0, 50)) * rng.standard_normal(hu.shape, np.float32)
    shading = _enlarged(rng.normal(0, rng.uniform(0, 15), (3, 3, 3)).astype(np.float32))
    return hu * float(rng.normal(1, 0.03)) + shading


def _cut_off(rng: np.random.Generator) -> Bool:
    """What lies beyond the scan's ends, in a part of the pieces: short scans and crops are padded."""
    out = np.zeros((SIDE, SIDE, SIDE), bool)
    if rng.random() < 0.3:
        low = int(rng.integers(0, SIDE - 18))
        high = min(SIDE, low + int(rng.integers(16, 46)))
        out[:low] = out[high:] = True
    if rng.random() < 0.12:
        out |= _beside(rng)[:, None]
    if rng.random() < 0.12:
        out |= _beside(rng)
    return out


def _beside(rng: np.random.Generator) -> Bool:
    """Along an axis: what lies beyond a crop's two ends."""
    at, low, high = np.arange(SIDE), rng.integers(0, 24), SIDE - rng.integers(0, 24)
    return (at < low) | (at >= high)
