"""The people of the cohort: CTs with their structures, and which of their regions are looked at."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fluoronav.case import CaseError, Volume, read_volume, to_hounsfield
from fluoronav.paths import embedded_case

Float = NDArray[np.float64]

# Labels of TotalSegmentator, version 1 (Wasserthal et al., Radiology AI 5:e230024, 2023).
VERTEBRAE = (
    {25: "sacrum", 26: "S1"} | {27 + k: f"L{5 - k}" for k in range(5)} | {32 + k: f"T{12 - k}" for k in range(12)}
)
VERTEBRAE |= {44 + k: f"C{7 - k}" for k in range(7)}
_HIPS = {77: "hip_left", 78: "hip_right"}
RIBS = frozenset(range(92, 116))
VESSELS = frozenset(range(51, 69))  # heart, aorta, large vessels
_BONE_HU = 150


@dataclass(frozen=True)
class Region:
    """What a picture is aimed at.

    Attributes
    ----------
    name : str
        ``lumbar``, ``pelvis``, ``mediastinum``, ``chest``, or ``dense`` where there is no label map.
    target : int
        Label of the bone that decides; 0 without a label map.
    rigid : tuple of int
        Labels of the bones that the case registers as one body.
    """

    name: str
    target: int
    rigid: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Person:
    """A CT, its label map and its contrast.

    Attributes
    ----------
    ct : Volume
        HU.
    labels : Volume or None
        Labels of TotalSegmentator, version 1.
    surroundings : Volume or None
        A coarse CT of the whole trunk, where `ct` is a part.
    """

    name: str
    ct: Volume = field(repr=False)
    labels: Volume | None = field(repr=False, default=None)
    surroundings: Volume | None = field(repr=False, default=None)

    @cached_property
    def regions(self) -> tuple[Region, ...]:
        """The regions that this CT shows, each with a vertebra that is in it as a whole, and its neighbours."""
        if self.labels is None:
            return (Region("skull" if self._is_head() else "dense", 0, ()),)
        whole = self._whole_bones()
        found = []
        for name, wanted in (
            ("lumbar", ("L3", "L2", "L4")),
            ("mediastinum", ("T5", "T6", "T4")),
            ("chest", ("T8", "T9", "T10")),
        ):
            for vertebra in wanted:
                label = _LABEL_OF[vertebra]
                if label in whole:
                    found.append(Region(name, label, tuple(n for n in range(label - 2, label + 3) if n in whole)))
                    break
        if {25, *_HIPS} <= whole:
            found.append(Region("pelvis", 25, (25, *_HIPS)))
        return tuple(found)

    def _whole_bones(self) -> set[int]:
        """Labels of bones with more than a few voxels, none of them in the CT's first or last slices."""
        assert self.labels is not None
        voxels = self.labels.voxels
        counts = np.bincount(voxels.ravel().astype(np.int64), minlength=120)
        cut = set(np.unique(voxels[:1])) | set(np.unique(voxels[-1:]))
        volume = np.prod(self.labels.image.GetSpacing())
        # Hips are cut in most CTs of the trunk, and are still most of what a picture of the pelvis shows.
        return {n for n in range(25, 79) if counts[n] * volume > 5000 and (n not in cut or n in _HIPS)}

    def _is_head(self) -> bool:
        """Whether the CT is narrow and ends in air above: a head."""
        low, high = (self.ct.corners_ct()[k] for k in (0, -1))
        bone = self.ct.voxels > _BONE_HU
        return bool(np.ptp([low, high], axis=0)[0] < 300 and bone.mean() > 0.03)

    def target_ct(self, region: Region) -> Float:
        """The point for which errors are stated: the middle of the target bone, LPS mm."""
        if region.target:
            return np.mean(self.bone_points_ct(region.target), axis=0)
        dense = np.argwhere(self.ct.voxels > _BONE_HU)[::97, ::-1].mean(0)
        return np.array(self.ct.image.TransformContinuousIndexToPhysicalPoint(dense.tolist()))

    def bone_points_ct(self, label: int, most: int = 400) -> Float:
        """Points of one bone, LPS mm, shape (n, 3)."""
        assert self.labels is not None
        at = np.argwhere(self.labels.voxels == label)[:, ::-1].astype(float)
        at = at[:: max(len(at) // most, 1)]
        return np.array([self.labels.image.TransformContinuousIndexToPhysicalPoint(p.tolist()) for p in at])

    @cached_property
    def structures(self) -> dict[int, str]:
        """Names by label, of the bones that a case may name."""
        names = {n: v if v == "sacrum" else f"vertebrae_{v}" for n, v in VERTEBRAE.items()}
        return names | _HIPS


_LABEL_OF = {name: label for label, name in VERTEBRAE.items()}


def read_person(name: str, ct: Path, labels: Path | None = None, surroundings: Path | None = None) -> Person:
    """A person from files; raises CaseError that names the file."""
    read = [None if p is None else read_volume(p) for p in (ct, labels, surroundings)]
    assert read[0] is not None
    hu = [None if v is None else to_hounsfield(v, None, f"{v.path}:").volume for v in (read[0], read[2])]
    assert hu[0] is not None
    if read[1] is not None and not np.isin(list(VERTEBRAE), np.unique(read[1].voxels)).any():
        raise CaseError(
            f"{labels}: has no vertebra; the label map must number structures as TotalSegmentator 1 does "
            "(25 sacrum, 27 L5 to 31 L1, 32 T12 to 43 T1, 44 C7 to 50 C1)"
        )
    return Person(name, hu[0], read[1], hu[1])


@lru_cache(4)
def person_of(spec: tuple[str, ...]) -> Person:
    """A person by its specification: name, CT, label map and surroundings (the last two may be missing or empty)."""
    name, *paths = spec
    ct, labels, around = [Path(p) if p else None for p in (*paths, "", "")][:3]
    assert ct is not None
    return read_person(name, ct, labels, around)


def known_people(data: Path) -> list[tuple[str, ...]]:
    """Specifications of the people in a data folder; the embedded case where it has none."""
    found = []
    for name, folder in (("chest", data / "chest"), ("patient_b", data / "planning" / "patient_b")):
        if (folder / "ct.nii.gz").exists():
            found.append((name, str(folder / "ct.nii.gz"), str(folder / "labels.nii.gz")))
    if found:
        return found
    return [("embedded", *(str(embedded_case().parent / f"{part}.nrrd") for part in ("ct", "labels", "surroundings")))]


def spec_of(text: str) -> tuple[str, ...]:
    """A person as a user writes it: ``NAME=CT[,LABELS]``, or a CT alone.

    Raises
    ------
    CaseError
        There is no such file.
    """
    name, equals, files = text.partition("=")
    if not equals:
        name, files = Path(text).name.split(".")[0], text
    paths = files.split(",")
    for path in paths:
        if not Path(path).exists():
            raise CaseError(f"{path}: no such CT or label map; write NAME=CT[,LABELS]")
    return (name, *(str(Path(p).resolve()) for p in paths))
