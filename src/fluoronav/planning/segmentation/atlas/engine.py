"""The atlas engine: coarse place, vertebra by vertebra, surroundings, and the question of the level."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from fluoronav.case.volume import Volume
from fluoronav.planning.anatomy import vertebra, vocabulary
from fluoronav.planning.segmentation.atlas.bone import Block, bone_in
from fluoronav.planning.segmentation.atlas.confidence import Signs, confidence_of, metal_near
from fluoronav.planning.segmentation.atlas.level import level_of_spine
from fluoronav.planning.segmentation.atlas.scan import Scan, scan_of
from fluoronav.planning.segmentation.atlas.shipped import BORROWED, VERSION, Atlas, load_atlas
from fluoronav.planning.segmentation.atlas.spine import ORDER, FoundVertebra, Spine
from fluoronav.planning.segmentation.atlas.start import Start, starts
from fluoronav.planning.segmentation.atlas.surroundings import Surroundings, surroundings_of
from fluoronav.planning.segmentation.engine import (
    Progress,
    Question,
    Segmentation,
    SegmentationError,
    SegmentedStructure,
)

_LEAST_SCORE = 0.4  # of the coarse place; scans of patients B, D and L3 reach 0.66 and more, a head or a knee less
_TRIED = 3  # coarse places that a vertebra is registered at


@dataclass(frozen=True)
class AtlasOptions:
    """What a person can say.

    Attributes
    ----------
    at : (str, (float, float, float)), optional
        A level, and a point in its body, LPS mm.
    level_of : (str, str), optional
        What a draft calls a vertebra, and which it is: ("T12", "L1") numbers all one lower than the search would.
    surroundings : bool
        Also ribs, organs and vessels, as drafts.
    """

    at: tuple[str, tuple[float, float, float]] | None = None
    level_of: tuple[str, str] | None = None
    surroundings: bool = True


@dataclass
class _Found:
    """What the steps have found so far."""

    start: Start
    chain: list[FoundVertebra]
    scores: list[float] = field(default_factory=list)


class AtlasEngine:
    """Registers the shipped atlas to a CT.

    Parameters
    ----------
    options : AtlasOptions
    """

    name = "atlas"

    def __init__(self, options: AtlasOptions | None = None) -> None:
        self._options = options or AtlasOptions()
        levels = [self._options.at[0]] if self._options.at else []
        for level in (*levels, *(self._options.level_of or ())):
            if level not in ORDER:
                raise SegmentationError(f"{level}: the atlas holds {ORDER[0]} to {ORDER[-1]}; name one of them")

    def segment(self, ct: Volume, progress: Progress) -> Segmentation:
        """Segments a CT; see :class:`fluoronav.planning.segmentation.engine.Engine`.

        Raises
        ------
        SegmentationError
            The CT cannot be used, or shows nothing of what the atlas holds.
        """
        begun = time.perf_counter()
        progress("reading the atlas", 0.0)
        atlas, scan = load_atlas(), scan_of(ct)
        found = self._spine(atlas, scan, ct, progress)
        by_person = self._options.at is not None or self._options.level_of is not None
        level = level_of_spine(atlas, scan, found.chain, found.scores, by_person)
        around = None
        if self._options.surroundings:
            progress("ribs and organs", 0.85)
            around = surroundings_of(atlas, scan, found.start, found.chain)
        progress("writing labels", 0.95)
        labels = _Labels(ct.image)
        if around is not None:
            labels.put_surroundings(around)
        structures = labels.put_spine(scan, found.chain, level.sure)
        structures += labels.structures(around)
        questions = (level.question,) if level.question else ()
        progress("done", 1.0)
        return Segmentation(
            labels.image(), tuple(structures), VERSION, time.perf_counter() - begun, questions,
            (*scan.warnings, *_warnings(found.chain, questions)),
        )  # fmt: skip

    def _spine(self, atlas: Atlas, scan: Scan, ct: Volume, progress: Progress) -> _Found:
        click = None
        if self._options.at is not None:
            level, point = self._options.at
            click = (level, np.array(point, np.float64))
            _check_inside(ct, point)
        places = starts(atlas, scan.working, progress, click)
        if not places or places[0].score < _LEAST_SCORE:
            best = places[0].score if places else 0.0
            raise SegmentationError(
                f"{ct.path}: shows no spine between T1 and L3 that the atlas fits (best {best:.2f}, needed "
                f"{_LEAST_SCORE}): is it a CT of chest or abdomen? A click helps: --at T12=x,y,z (LPS mm)"
            )
        spine = Spine(atlas, scan)
        with ThreadPoolExecutor(2) as both:
            seeds = list(both.map(spine.seed, places[:_TRIED]))
        # The coarse place knows ribs and organs, the seed the shape of one vertebra: both count.
        best = max(range(len(seeds)), key=lambda k: places[k].score + seeds[k][2])
        level, transform, _ = seeds[best]
        if self._options.level_of is not None:
            level = self._renamed(level)
            transform = spine.renamed(seeds[best][0], level, transform)
        chain = spine.chain(level, transform, progress)
        if not chain:
            raise SegmentationError(
                f"{ct.path}: no vertebra fits the atlas well enough; give a click: --at T12=x,y,z (LPS mm), or "
                "import a segmentation (--engine import)"
            )
        return _Found(places[best], chain, [p.score for p in places])

    def _renamed(self, level: str) -> str:
        assert self._options.level_of is not None
        drafted, true = self._options.level_of
        at = ORDER.index(level) + ORDER.index(true) - ORDER.index(drafted)
        if not 0 <= at < len(ORDER):
            raise SegmentationError(
                f"--level-of {drafted}={true}: the spine would reach beyond {ORDER[0]} to {ORDER[-1]}"
            )
        return ORDER[at]


class _Labels:
    """The label map while it is filled, on the CT's grid."""

    def __init__(self, ct: sitk.Image) -> None:
        self._ct = ct
        self._voxels = np.zeros(ct.GetSize()[::-1], np.uint8)

    def image(self) -> sitk.Image:
        out = sitk.GetImageFromArray(self._voxels)
        out.CopyInformation(self._ct)
        return out

    def put_surroundings(self, around: Surroundings) -> None:
        """Slab by slab, so that a long scan takes no second copy."""
        count = self._ct.GetSize()[2]
        for first in range(0, count, 64):
            size = [*self._ct.GetSize()[:2], min(64, count - first)]
            slab = sitk.Image(size, sitk.sitkUInt8)
            slab.SetDirection(self._ct.GetDirection())
            slab.SetSpacing(self._ct.GetSpacing())
            slab.SetOrigin(self._ct.TransformIndexToPhysicalPoint([0, 0, first]))
            there = sitk.Resample(around.labels, slab, sitk.Transform(), sitk.sitkNearestNeighbor, 0)
            self._voxels[first : first + size[2]] = sitk.GetArrayViewFromImage(there)

    def put_spine(self, scan: Scan, chain: list[FoundVertebra], sure: bool) -> list[SegmentedStructure]:
        """Each voxel goes to the vertebra that it most likely is of."""
        blocks: list[tuple[FoundVertebra, Block]] = []
        for found in chain:
            block = bone_in(self._ct, found.fit.soft, found.fit.correlation)
            if block is not None and (block.odds > 0).any():
                blocks.append((found, block))
        out = []
        for k, (found, block) in enumerate(blocks):
            mine = block.odds > 0
            for other in (blocks[j][1] for j in (k - 1, k + 1) if 0 <= j < len(blocks)):
                _give_way(mine, block, other)
            label = vertebra(found.level).label
            view = self._voxels[_slices(block.low, block.odds.shape)]
            view[mine] = label
            signs = Signs(
                found.fit.correlation, block.contrast, found.fit.share, found.borrowed, metal_near(scan, found.body_ct)
            )
            out.append(self._structure(label, int(mine.sum()), confidence_of(signs, level_sure=sure)))
        return [s for s in out if s.voxels]

    def structures(self, around: Surroundings | None) -> list[SegmentedStructure]:
        """The structures around the spine, with the voxels that vertebrae have left them."""
        if around is None:
            return []
        counts = np.zeros(256, np.int64)
        for plane in self._voxels:
            counts += np.bincount(plane.ravel(), minlength=256)
        return [
            self._structure(label, int(counts[label]), sure)
            for label, sure in around.confidence.items()
            if counts[label]
        ]

    def _structure(self, label: int, voxels: int, confidence: float) -> SegmentedStructure:
        volume = voxels * float(np.prod(self._ct.GetSpacing())) / 1000
        return SegmentedStructure(vocabulary()[label].name, label, "atlas", confidence, voxels, round(volume, 3))


def _slices(low: tuple[int, int, int], shape: tuple[int, ...]) -> tuple[slice, slice, slice]:
    z, y, x = (slice(first, first + n) for first, n in zip(low[::-1], shape, strict=True))
    return z, y, x


def _give_way(mine: NDArray[np.bool_], block: Block, other: Block) -> None:
    """Takes voxels out of `mine` that are more likely of another vertebra."""
    first = np.maximum(block.low, other.low)
    last = np.minimum(np.add(block.low, block.odds.shape[::-1]), np.add(other.low, other.odds.shape[::-1]))
    if (last <= first).any():
        return

    def cut(low: tuple[int, int, int]) -> tuple[slice, ...]:
        return tuple(slice(a - b, c - b) for a, c, b in zip(first[::-1], last[::-1], low[::-1], strict=True))

    own, others = cut(block.low), cut(other.low)
    mine[own] &= block.odds[own] >= other.odds[others]


def _check_inside(ct: Volume, point: tuple[float, float, float]) -> None:
    index = np.array(ct.image.TransformPhysicalPointToContinuousIndex(point))
    if ((index < -0.5) | (index > np.array(ct.image.GetSize()) - 0.5)).any():
        corners = ct.corners_ct()
        low, high = corners.min(0), corners.max(0)
        raise SegmentationError(
            f"--at {', '.join(f'{x:g}' for x in point)}: lies outside the CT, which reaches from "
            f"{', '.join(f'{x:.0f}' for x in low)} to {', '.join(f'{x:.0f}' for x in high)} (LPS mm)"
        )


def _warnings(chain: list[FoundVertebra], questions: tuple[Question, ...]) -> list[str]:
    out = []
    cut = [v.level for v in chain if v.is_cut]
    if cut:
        out.append(f"{', '.join(cut)}: cut by the end of the scan; volumes and heights are of a part")
    borrowed = [v.level for v in chain if v.borrowed]
    if borrowed:
        out.append(
            f"{', '.join(borrowed)}: below the atlas; drawn with the shape of L2, so look at the arch and processes"
        )
    if chain[-1].level in BORROWED or chain[-1].level == "L2":
        out.append(f"nothing below {chain[-1].level} is drafted: the atlas holds no lower lumbar spine and no sacrum")
    if questions:
        out.append("the level of the vertebrae is not sure; see the question")
    return out
