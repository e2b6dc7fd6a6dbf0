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
import torch
from scipy import ndimage
from torch.nn import functional

from fluoronav.planning.anatomy import vocabulary

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
    codes : Tensor, shape (1, 1, z, y, x)
        Of tissue, float32, voxels of 1.5 mm, axes along the patient's (LPS).
    hu : Tensor or None
        The CT, plus 2000, on the same grid; None where only labels are there.
    vertebra_points : ndarray, shape (n, 3)
        Some voxels of vertebrae, z, y, x.
    vessels : frozenset of int
        Codes of vessels.
    """

    codes: torch.Tensor
    hu: torch.Tensor | None
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
    return LabelMap(
        torch.from_numpy(codes.astype(np.float32))[None, None],
        None if hu is None else torch.from_numpy(hu.astype(np.float32) + 2000)[None, None],
        points[:: max(len(points) // 5000, 1)],
        vessels,
    )


def _fine(image: sitk.Image, nearest: bool) -> np.ndarray:
    size = [int(n * s / _FINE_MM) for n, s in zip(image.GetSize(), image.GetSpacing(), strict=True)]
    out = sitk.Resample(
        image, size, sitk.Transform(), sitk.sitkNearestNeighbor if nearest else sitk.sitkLinear, image.GetOrigin(),
        [_FINE_MM] * 3, image.GetDirection(), 0.0 if nearest else -1000.0,
    )  # fmt: skip
    return sitk.GetArrayFromImage(out)


def piece(source: LabelMap, rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """One piece.

    Returns
    -------
    hu : Tensor, shape (1, 1, 64, 64, 64)
        NaN outside the scan.
    classes : Tensor, shape (1, 64, 64, 64)
        Indices of :data:`CLASSES`, or :data:`NOT_ASKED`.
    """
    grid = _places(source, rng)
    codes = functional.grid_sample(source.codes, grid, "nearest", align_corners=True)[0, 0].numpy().astype(np.uint8)
    real = None
    if source.hu is not None:
        real = functional.grid_sample(source.hu, grid, "bilinear", align_corners=True)[0, 0] - 2000
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
    outside = torch.from_numpy(codes == 0) | _cut_off(rng)
    hu[outside], classes[outside.numpy()] = torch.nan, NOT_ASKED
    return hu[None, None], torch.from_numpy(classes)[None]


def _places(source: LabelMap, rng: np.random.Generator) -> torch.Tensor:
    """Where each voxel of a piece lies in the label map, as grid_sample takes it."""
    shape = np.array(source.codes.shape[2:])
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
    at = torch.from_numpy(np.stack(np.meshgrid(step, step, step, indexing="ij"), -1).astype(np.float32))
    at = at @ torch.from_numpy((turn / sizes[:, None]).T.astype(np.float32)) + torch.from_numpy(
        centre.astype(np.float32)
    )
    for knots, most_mm in ((4, 7.0), (9, 2.0)):
        field = torch.from_numpy(
            rng.normal(0, rng.uniform(0, most_mm / 2) / _FINE_MM, (1, 3, knots, knots, knots)).astype(np.float32)
        )
        at = at + _enlarged(field)[0].permute(1, 2, 3, 0)
    at = 2 * at / torch.from_numpy((shape - 1).astype(np.float32)) - 1
    return at.flip(-1)[None]  # x first


def _enlarged(values: torch.Tensor) -> torch.Tensor:
    return functional.interpolate(values, (SIDE, SIDE, SIDE), mode="trilinear", align_corners=True)


def _smooth_noise(rng: np.random.Generator, knots: int) -> np.ndarray:
    """Smooth random numbers with a standard deviation of about 1."""
    noise = torch.from_numpy(rng.normal(0, 1, (1, 1, knots, knots, knots)).astype(np.float32))
    return 1.6 * _enlarged(noise)[0, 0].numpy()


def _with_surroundings(codes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
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


def _made_up(codes: np.ndarray, vessels: frozenset[int], rng: np.random.Generator) -> torch.Tensor:
    """HU drawn for each tissue, with its texture."""
    mean, spread = np.zeros(_MOST_CODES, np.float32), rng.uniform(3, 25, _MOST_CODES).astype(np.float32)
    for code in range(1, _MOST_CODES):
        low, high = _HU.get(code, _VESSEL_HU if code in vessels else _ORGAN_HU)
        mean[code] = rng.uniform(low, high)
    for inner, shell in ((TRABECULAR, CORTICAL), (OTHER_TRABECULAR, OTHER_CORTICAL)):
        mean[inner] = rng.uniform(*_TRABECULAR_HU)
        mean[shell] = mean[inner] + rng.uniform(*_CORTICAL_MORE_HU)
        spread[[inner, shell]] = rng.uniform(10, 90, 2)
    texture = torch.from_numpy(rng.normal(0, 1, codes.shape).astype(np.float32))[None, None]
    texture = 1.5 * functional.avg_pool3d(texture, 3, 1, 1)[0, 0] * 2
    return torch.from_numpy(mean[codes]) + torch.from_numpy(spread[codes]) * texture


def _real(
    hu: torch.Tensor, codes: np.ndarray, vessels: frozenset[int], rng: np.random.Generator
) -> torch.Tensor:  # fmt: skip
    """The real CT, each tissue brighter or darker, bone denser or thinner."""
    shift = rng.normal(0, 12, _MOST_CODES).astype(np.float32)
    shift[list(vessels)] = rng.normal(-40, 90, len(vessels))
    shift[[AIR, LUNG, FAT]] /= 2
    gain = float(np.exp(rng.normal(0, 0.3)))
    dense = (hu - 120).clamp(min=0)
    soft = functional.avg_pool3d(torch.from_numpy(shift[codes])[None, None], 3, 1, 1)[0, 0]
    return hu + (gain - 1) * dense + soft


def _scanned(hu: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """What a scanner makes of it: thick slices or coarse voxels, noise, a little shading."""
    hu = hu[None, None]
    thick = float(rng.choice([1.0, 1.0, rng.uniform(1.0, 2.5)]))
    along = float(rng.choice([1.0, rng.uniform(1.0, 2.5), rng.uniform(1.0, 2.5)]))
    if max(thick, along) > 1.05:
        size = [round(SIDE / f) for f in (along, thick, thick)]
        coarse = functional.interpolate(hu, size, mode="trilinear", align_corners=False)
        coarse = 0.5 * coarse + 0.5 * functional.adaptive_avg_pool3d(hu, size)
        coarse = coarse + float(rng.uniform(0, 45)) * torch.randn(coarse.shape)
        hu = functional.interpolate(coarse, (SIDE, SIDE, SIDE), mode="trilinear", align_corners=False)
    if rng.random() < 0.6:
        hu = hu + float(rng.uniform(0, 50)) * torch.randn(hu.shape)
    shading = torch.from_numpy(rng.normal(0, rng.uniform(0, 15), (1, 1, 3, 3, 3)).astype(np.float32))
    return (hu * float(rng.normal(1, 0.03)) + _enlarged(shading))[0, 0]


def _cut_off(rng: np.random.Generator) -> torch.Tensor:
    """What lies beyond the scan's ends, in a part of the pieces: short scans and crops are padded."""
    out = torch.zeros((SIDE, SIDE, SIDE), dtype=torch.bool)
    if rng.random() < 0.3:
        low = int(rng.integers(0, SIDE - 18))
        high = min(SIDE, low + int(rng.integers(16, 46)))
        out[:low], out[high:] = True, True
    for axis in (1, 2):
        if rng.random() < 0.12:
            low = int(rng.integers(0, 24))
            high = SIDE - int(rng.integers(0, 24))
            out.narrow(axis, 0, low).fill_(True)
            out.narrow(axis, high, SIDE - high).fill_(True)
    return out
