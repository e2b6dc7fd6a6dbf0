"""Which level the vertebrae have, by their ribs, and what speaks against another count.

A spine that is numbered one vertebra too high or too low fits the atlas nearly as well. The last vertebra with ribs
tells the two apart, where a person has twelve.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy import ndimage

from fluoronav.planning.anatomy import by_name
from fluoronav.planning.segmentation.atlas.local import affine_parts
from fluoronav.planning.segmentation.atlas.scan import Scan
from fluoronav.planning.segmentation.atlas.shipped import Atlas
from fluoronav.planning.segmentation.atlas.spine import ORDER, FoundVertebra
from fluoronav.planning.segmentation.engine import Question

Float = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class LevelSettings:
    """Settings of the count of ribs; on patient B T12 has 0.2 (its twelfth ribs are short), L1 and L2 below 0.1."""

    bone_hu: float = 130.0
    # Part of the atlas's twelfth ribs that is looked for: farther to the side than a transverse process of L1 reaches.
    nearest_mm: float = 42.0
    farthest_mm: float = 62.0
    shifts_mm: tuple[float, ...] = (-9.0, -6.0, -3.0, 0.0, 3.0, 6.0, 9.0)
    rib: float = 0.5  # share of its voxels in bone, both sides: a rib
    no_rib: float = 0.1
    least_seen: float = 0.7  # share of the voxels inside the scan


SETTINGS = LevelSettings()


# Above, every vertebra has ribs; below, transverse processes and the pelvis look like them.
_COUNTED = ("T10", "T11", "T12", "L1", "L2")


@dataclass(frozen=True)
class Level:
    """What is known of the count.

    Attributes
    ----------
    sure : bool
        Ribs end where the count says so, or a person has said the level.
    question : Question or None
    """

    sure: bool
    question: Question | None


def level_of_spine(atlas: Atlas, scan: Scan, chain: list[FoundVertebra], scores: list[float], by_person: bool) -> Level:
    """Judges the count of a chain.

    Parameters
    ----------
    atlas, scan
    chain : list of FoundVertebra
        From head to feet.
    scores : list of float
        Of the coarse places, the best first.
    by_person : bool
        A person has said where a level is.
    """
    if by_person or not chain:
        return Level(by_person, None)
    ribs = {v.level: rib_share(atlas, scan, v) for v in chain if v.level in _COUNTED}
    if "T12" in ribs and "L1" in ribs:
        has, has_not = ribs["T12"], ribs["L1"]
        if has is not None and has_not is not None and has >= SETTINGS.rib and has_not <= SETTINGS.no_rib:
            return Level(True, None)
    return Level(False, _question(chain, ribs, scores))


def _question(chain: list[FoundVertebra], ribs: dict[str, float | None], scores: list[float]) -> Question:
    # The most whole one in the middle is the easiest to recognise.
    asked = max(chain, key=lambda v: (not v.is_cut, not v.borrowed, v.fit.correlation))
    at = ORDER.index(asked.level)
    choices = [ORDER[k] for k in (at, at - 1, at + 1) if 0 <= k < len(ORDER)]
    point = ", ".join(f"{x:.0f}" for x in asked.body_ct)
    seen = {level: share for level, share in ribs.items() if share is not None}
    said = [f"{level} {_rib_word(share)}" for level, share in seen.items()]
    evidence = [f"ribs: {', '.join(said)}" if said else "the scan does not show where ribs end"]
    if len(scores) > 1:
        evidence.append(
            f"the place chosen fits with {scores[0]:.2f}, the next one along the spine with {scores[1]:.2f}"
        )
    return Question(
        "level",
        f"Which level is the vertebra whose body is at {point} (LPS mm)? It is drafted as {asked.level}.",
        tuple(choices),
        "; ".join(evidence),
        ((float(asked.body_ct[0]), float(asked.body_ct[1]), float(asked.body_ct[2])),),
    )


def _rib_word(share: float) -> str:
    return "clear" if share >= SETTINGS.rib else "none" if share <= SETTINGS.no_rib else "unclear"


def rib_share(atlas: Atlas, scan: Scan, found: FoundVertebra) -> float | None:
    """Share of the atlas's twelfth ribs, put at a vertebra, that lies in bone; None where the scan does not show it."""
    matrix, _ = affine_parts(found.fit.T_scan_atlas)
    shares = []
    for side in ("left", "right"):
        points = _rib_points(atlas, f"rib_{side}_12") @ matrix.T + found.body_ct
        share = _best_share(scan.working, points)
        if share is not None:
            shares.append(share)
    return float(np.mean(shares)) if shares else None


def _rib_points(atlas: Atlas, name: str) -> Float:
    """Points of a rib near its vertebra, relative to the centre of T12's body, atlas mm."""
    label = by_name()[name].label
    voxels = sitk.GetArrayViewFromImage(atlas.labels)
    points = np.array(atlas.labels.GetOrigin()) + np.argwhere(voxels == label)[:, ::-1] * atlas.labels.GetSpacing()
    points = points - atlas.body_centres["T12"]
    aside = np.abs(points[:, 0])
    return points[(aside > SETTINGS.nearest_mm) & (aside < SETTINGS.farthest_mm)]


def _best_share(image: sitk.Image, points: Float) -> float | None:
    if len(points) == 0:
        return None
    at = (points - np.array(image.GetOrigin())) / np.array(image.GetSpacing())
    inside = ((at >= 0) & (at <= np.array(image.GetSize()) - 1)).all(1)
    if inside.mean() < SETTINGS.least_seen:
        return None
    voxels = sitk.GetArrayViewFromImage(image)
    best = 0.0
    for along in SETTINGS.shifts_mm:
        for forward in SETTINGS.shifts_mm:
            there = at[inside] + np.array([0, forward, along]) / np.array(image.GetSpacing())
            values = ndimage.map_coordinates(voxels, there[:, ::-1].T, order=1, mode="nearest", output=np.float32)
            best = max(best, float((values > SETTINGS.bone_hu).mean()))
    return best
