"""What is unusual about an imported structure: pieces, cut ends, an open arch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy import ndimage

from fluoronav.case.volume import bounds
from fluoronav.planning.anatomy import by_name, mirrored


@dataclass(frozen=True, slots=True)
class PieceLimits:
    """When a piece counts; both are chosen."""

    least_share: float = 0.02  # of the structure; smaller pieces are specks
    least_mm3: float = 50.0


LIMITS = PieceLimits()
# One vertebra more than most people have.
_RARE = {"vertebrae_T13": "a thirteenth thoracic vertebra", "vertebrae_L6": "a sixth lumbar vertebra"}


def unusual(name: str, mask: NDArray[np.bool_], image: sitk.Image) -> list[str]:
    """What a person should look at in one structure, mask (z, y, x) on the grid of the CT."""
    box = bounds(mask)
    if box is None:
        return []
    low, high = box
    cut = mask[tuple(slice(a, b + 1) for a, b in zip(low[::-1], high[::-1], strict=True))]
    out = []
    parts = np.zeros(cut.shape, np.int32)
    ndimage.label(cut, np.ones((3, 3, 3)), output=parts)
    sizes = np.bincount(parts.ravel())[1:]
    voxel = float(np.prod(image.GetSpacing()))
    real = sizes[(sizes > LIMITS.least_share * sizes.sum()) & (sizes * voxel > LIMITS.least_mm3)]
    if len(real) > 1:
        volumes = ", ".join(f"{n * voxel / 1000:.1f}" for n in sorted(real, reverse=True)[:5])
        out.append(f"{name}: is in {len(real)} pieces ({volumes} cm3); kept")
    elif len(sizes) > 1:
        out.append(f"{name}: has {len(sizes) - 1} specks beside it; kept")
    if _touches_end(low, high, image):
        out.append(f"{name}: reaches the end of the scan; volumes and heights are of a part")
    elif name.startswith("vertebrae_") and not name.endswith("S1") and not _is_ring(cut, image):
        out.append(f"{name}: its arch is open (a laminectomy, or a gap in the label); kept")
    if name in _RARE:
        out.append(f"{name}: {_RARE[name]}; kept, check the count")
    return out


def _touches_end(low: NDArray, high: NDArray, image: sitk.Image) -> bool:
    size = np.array(image.GetSize())
    along = int(np.abs(np.array(image.GetDirection()).reshape(3, 3)[2]).argmax())
    return bool(low[along] == 0 or high[along] == size[along] - 1)


def _is_ring(mask: NDArray[np.bool_], image: sitk.Image) -> bool:
    """Whether the vertebra encloses the canal, seen along the spine or in any slice across it."""
    along = 2 - int(np.abs(np.array(image.GetDirection()).reshape(3, 3)[2]).argmax())
    spacing = np.delete(np.array(image.GetSpacing())[::-1], along)
    least = 60.0 / float(np.prod(spacing))  # a canal has 150 mm2 and more
    planes = [mask.any(axis=along), *np.moveaxis(mask, along, 0)]
    return any(int((ndimage.binary_fill_holes(p) & ~p).sum()) > least for p in planes)


def exchanged(centres_ct: dict[str, NDArray[np.float64]]) -> tuple[int, int]:
    """Number of pairs of structures, and of those whose left one lies to the right of the right one."""
    known = by_name()
    pairs = [(n, mirrored(n)) for n in centres_ct if "left" in n and n in known and mirrored(n) in centres_ct]
    # LPS: x grows to the patient's left.
    return len(pairs), sum(centres_ct[left][0] < centres_ct[right][0] for left, right in pairs)
