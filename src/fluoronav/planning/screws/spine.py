"""The vertebrae of a label map, checked against one another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy import ndimage

from fluoronav.planning.anatomy import LEVELS, Scheme, labels_of_scheme, level_of
from fluoronav.planning.screws.bone import VertebraError
from fluoronav.planning.screws.vertebra import Vertebra, read_vertebra

Float = NDArray[np.float64]

# T13 and L6 follow the last level of their region.
ORDER = tuple(level for known in LEVELS for level in {"T12": ("T12", "T13"), "L5": ("L5", "L6")}.get(known, (known,)))


@dataclass(frozen=True)
class Spine:
    """The label map of a patient, and which of its values are vertebrae.

    Attributes
    ----------
    image : SimpleITK.Image
        Whole numbers, any grid.
    values : dict
        Label value of each level that has voxels, from head to tail.
    """

    image: sitk.Image = field(repr=False)
    values: dict[str, int]

    def middles_ct(self) -> dict[str, Float]:
        """Middle of each vertebra's bounding box, LPS mm."""
        middles = _middles_ct(self.image)
        return {level: middles[value] for level, value in self.values.items()}

    def vertebra(self, level: str) -> Vertebra:
        """Reads a vertebra.

        Raises
        ------
        VertebraError
            There is none, or its label cannot be used.
        """
        level = level.strip().upper()
        if level not in ORDER:
            raise VertebraError(f"{level!r} is no vertebral level; levels are C1 to C7, T1 to T13, L1 to L6 and S1")
        if level not in self.values:
            there = " ".join(self.values) or "none"
            raise VertebraError(f"{level}: is not in the label map; its vertebrae are: {there}")
        return read_vertebra(self.image, self.values[level], level)


def spine_of_scheme(image: sitk.Image, scheme: Scheme) -> Spine:
    """The vertebrae of a label map that follows a scheme.

    Raises
    ------
    VertebraError
        Levels follow one another upside down, or left and right structures are on the other side.
    """
    names = {value: s.name for value, s in labels_of_scheme(scheme).items()}
    return spine_of_names(image, names)


def spine_of_names(image: sitk.Image, names: Mapping[int, str]) -> Spine:
    """The vertebrae of a label map whose structures have names; see :func:`spine_of_scheme`.

    Parameters
    ----------
    image : SimpleITK.Image
    names : mapping
        Of label values, such as ``vertebrae_T8`` or ``rib_left_4``.
    """
    middles = _middles_ct(image)
    present = {value: name for value, name in names.items() if value in middles}
    levels = {level: value for value, name in present.items() if (level := level_of(name)) in ORDER}
    values = {level: levels[level] for level in ORDER if level in levels}
    _check_order({level: middles[value] for level, value in values.items()})
    _check_sides({name: middles[value] for value, name in present.items()})
    return Spine(image, values)


def _middles_ct(image: sitk.Image) -> dict[int, Float]:
    """Middle of each label's bounding box, LPS mm."""
    boxes = ndimage.find_objects(sitk.GetArrayViewFromImage(image))
    step = np.array(image.GetDirection()).reshape(3, 3) * np.array(image.GetSpacing())
    origin = np.array(image.GetOrigin())
    return {
        k + 1: origin + step @ np.array([(s.start + s.stop - 1) / 2 for s in reversed(box)])
        for k, box in enumerate(boxes)
        if box is not None
    }


def _check_order(middles: dict[str, Float]) -> None:
    levels = list(middles)
    wrong = [(a, b) for a, b in pairwise(levels) if middles[a][2] <= middles[b][2]]
    if wrong and len(wrong) == len(levels) - 1:
        raise VertebraError(
            f"{wrong[0][0]} lies below {wrong[0][1]}, and so on: the label map is upside down, or its scheme is "
            "another; check --scheme and how the map was exported"
        )
    if wrong:
        raise VertebraError(f"{wrong[0][0]} lies below {wrong[0][1]}: their labels are exchanged; relabel them")


def _check_sides(middles: dict[str, Float]) -> None:
    """Refuses a map in which structures of the left lie right of those of the right (LPS: x grows to the left)."""
    pairs = [(n, n.replace("left", "right")) for n in middles if "left" in n]
    both = [(a, b) for a, b in pairs if b in middles]
    wrong = [(a, b) for a, b in both if middles[a][0] < middles[b][0]]
    if len(wrong) > len(both) / 2:
        raise VertebraError(
            f"{wrong[0][0]} lies right of {wrong[0][1]} (so in {len(wrong)} of {len(both)} pairs): the label map is "
            "mirrored; check its orientation and how it was exported"
        )
