"""Grades screws in the newest label map, fast enough to follow a hand that moves them."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from fluoronav.planning.anatomy import level_of
from fluoronav.planning.plan.schema import Screw
from fluoronav.planning.revisions import Revision
from fluoronav.workspace.errors import NotInstalled, Refused
from fluoronav.workspace.operations import box_of
from fluoronav.workspace.scan import Scan

if TYPE_CHECKING:
    from fluoronav.planning.screws.vertebra import Vertebra

_KEPT = 8  # vertebrae that are kept read; chosen: those that a surgeon instruments at a time
_MARGIN = 2  # voxels around a vertebra; what lies farther away is not looked at


class Grader:
    """Grades screws; keeps the vertebrae that it has read.

    Parameters
    ----------
    scan : Scan
    """

    def __init__(self, scan: Scan) -> None:
        self._scan = scan
        self._read: OrderedDict[tuple[str, int], Vertebra] = OrderedDict()
        self._lock = threading.Lock()

    def graded(self, screw: Screw, revision: Revision, labels: NDArray[np.uint16]) -> Screw:
        """A screw with its clearance, breach and grade. Half a second for a vertebra's first screw, then milliseconds.

        Parameters
        ----------
        screw : Screw
        revision : Revision
        labels : array of uint16, shape (z, y, x)
            Of the revision.

        Raises
        ------
        Refused
            The vertebra is not in the label map, or cannot be graded in.
        NotInstalled
        """
        try:
            from fluoronav.planning.screws.grading import graded
        except ImportError as error:
            raise NotInstalled(f"screws cannot be graded: their part is not installed ({error})") from error
        label = next((s.label for s in revision.structures if level_of(s.name) == screw.level.upper()), None)
        if label is None:
            raise Refused(f"{screw.level} is not in the label map: a screw is graded in the bone that it lies in")
        try:
            vertebra = self._vertebra(revision, label, screw.level.upper(), labels)
            found = graded(screw.entry_ct, screw.tip_ct, screw.diameter_mm, screw.side, vertebra)
        except ValueError as error:
            raise Refused(str(error)) from error
        measured: dict[str, Any] = {
            "clearance_mm": round(found.clearance_mm, 3), "breach_mm": round(found.breach_mm, 3), "grade": found.grade,
        }  # fmt: skip
        return screw.model_copy(update=measured)

    def _vertebra(self, revision: Revision, label: int, level: str, labels: NDArray[np.uint16]) -> Vertebra:
        from fluoronav.planning.screws.vertebra import read_vertebra

        key = revision.labels_hash, label
        with self._lock:
            if key not in self._read:
                self._read[key] = read_vertebra(self._cut(labels, label), label, level)
                while len(self._read) > _KEPT:
                    self._read.popitem(last=False)
            self._read.move_to_end(key)
            return self._read[key]

    def _cut(self, labels: NDArray[np.uint16], label: int) -> sitk.Image:
        """The part of the label map around a vertebra, at its place; a border of the scan stays a border."""
        box = tuple(
            slice(max(b.start - _MARGIN, 0), min(b.stop + _MARGIN, n))
            for b, n in zip(box_of(labels, label), labels.shape, strict=True)
        )
        out = self._scan.image(np.ascontiguousarray(labels[box]))
        first = np.array([box[2].start, box[1].start, box[0].start])
        out.SetOrigin((np.array(self._scan.origin_ct) + self._scan.step_mm() @ first).tolist())
        return out
