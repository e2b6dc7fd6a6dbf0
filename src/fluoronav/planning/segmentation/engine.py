"""What a segmentation engine takes and returns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

import SimpleITK as sitk

from fluoronav.case.volume import Volume

Progress = Callable[[str, float], None]
State = Literal["draft", "approved", "rejected"]


class SegmentationError(ValueError):
    """A CT or label map that an engine cannot use; the text says what is wrong, where, and what to do."""


@dataclass(frozen=True)
class SegmentedStructure:
    """One structure of a label map, with where it comes from.

    Attributes
    ----------
    name : str
        A name of :mod:`fluoronav.planning.anatomy`, or one that a person gave.
    label : int
        Its value in the label map.
    engine : str
        ``atlas``, ``network``, ``import``, ``threshold``, or ``person``.
    confidence : float
        0 to 1, by the engine's own method; for people to sort by, not a probability.
    voxels : int
    volume_cm3 : float
        Of the voxels, never of a smoothed surface.
    state : State
        What a person has said; engines return drafts.
    judged_by, judged_at : str
        Who approved or rejected it, and when (ISO 8601 with time zone); empty for a draft.
    """

    name: str
    label: int
    engine: str
    confidence: float
    voxels: int
    volume_cm3: float
    state: State = "draft"
    judged_by: str = ""
    judged_at: str = ""


@dataclass(frozen=True)
class Question:
    """Something that a person has to answer before the segmentation may be used.

    Attributes
    ----------
    key : str
        Such as ``level``.
    text : str
        The question, for people.
    choices : tuple of str
        Answers, the engine's own first.
    evidence : str
        What speaks for and against.
    points_ct : tuple
        Where to look, LPS mm.
    """

    key: str
    text: str
    choices: tuple[str, ...]
    evidence: str = ""
    points_ct: tuple[tuple[float, float, float], ...] = ()


@dataclass(frozen=True)
class Segmentation:
    """What an engine found.

    Attributes
    ----------
    labels : SimpleITK.Image
        uint8 or uint16 on the CT's grid; 0 is nothing.
    structures : tuple of SegmentedStructure
    engine : str
        Name and version.
    seconds : float
    questions : tuple of Question
    warnings : tuple of str
    """

    labels: sitk.Image
    structures: tuple[SegmentedStructure, ...]
    engine: str
    seconds: float
    questions: tuple[Question, ...] = ()
    warnings: tuple[str, ...] = ()


class Engine(Protocol):
    """Segments a CT."""

    name: str

    def segment(self, ct: Volume, progress: Progress) -> Segmentation:
        """Segments a CT.

        Parameters
        ----------
        ct : Volume
            HU.
        progress : callable
            Takes what is being done and the share done, 0 to 1.

        Raises
        ------
        SegmentationError
        """
        ...
