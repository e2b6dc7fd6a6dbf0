"""Changes of a label map as runs of voxels: what the page sends, the journal keeps and undo turns round."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fluoronav.workspace.errors import OutOfStep, WorkspaceError

# One run: index of its first voxel, (z * ny + y) * nx + x; its length; the label before and after.
RUN = np.dtype([("first", "<u4"), ("count", "<u4"), ("before", "<u2"), ("after", "<u2")])

Runs = NDArray[np.void]
Labels = NDArray[np.uint16]
Indices = NDArray[np.int64]

NOTHING: Runs = np.zeros(0, RUN)


def decoded(body: bytes, voxels: int) -> Runs:
    """The runs of a delta.

    Parameters
    ----------
    body : bytes
    voxels : int
        Number of voxels of the label map.

    Raises
    ------
    WorkspaceError
        It does not consist of whole runs, or they overlap, descend, are empty, change nothing or leave the volume.
    """
    if len(body) % RUN.itemsize:
        raise WorkspaceError(f"a delta has {len(body)} bytes; it must be a multiple of {RUN.itemsize}")
    runs = np.frombuffer(body, RUN)
    if not runs.size:
        raise WorkspaceError("a delta without runs changes nothing")
    first, end = runs["first"].astype(np.int64), runs["first"].astype(np.int64) + runs["count"]
    for wrong, text in (
        (runs["count"] == 0, "has no voxels"),
        (runs["before"] == runs["after"], "changes nothing: before and after are the same"),
        (end > voxels, f"leaves the volume of {voxels} voxels"),
        (np.r_[False, first[1:] < end[:-1]], "begins before the run before it has ended"),
    ):
        if wrong.any():
            raise WorkspaceError(f"run {int(np.argmax(wrong))} of the delta {text}")
    return runs


def indices(runs: Runs) -> Indices:
    """Index of every voxel of the runs, ascending."""
    count = runs["count"].astype(np.int64)
    before = np.cumsum(count) - count
    return np.repeat(runs["first"].astype(np.int64) - before, count) + np.arange(int(count.sum()))


def from_voxels(at: Indices, before: Labels, after: Labels) -> Runs:
    """The runs of single voxels.

    Parameters
    ----------
    at : array of int64, shape (n,)
        Ascending.
    before, after : array of uint16, shape (n,)
        Voxels with the same label before and after are left out.
    """
    changed = before != after
    at, before, after = at[changed], before[changed], after[changed]
    if not at.size:
        return NOTHING
    breaks = np.flatnonzero((np.diff(at) != 1) | (np.diff(before) != 0) | (np.diff(after) != 0)) + 1
    starts = np.r_[0, breaks]
    runs = np.empty(starts.size, RUN)
    runs["first"], runs["count"] = at[starts], np.diff(np.r_[starts, at.size])
    runs["before"], runs["after"] = before[starts], after[starts]
    return runs


def inverted(runs: Runs) -> Runs:
    """The runs that take these back."""
    out = runs.copy()
    out["before"], out["after"] = runs["after"], runs["before"]
    return out


def apply(runs: Runs, labels: Labels) -> None:
    """Changes a flat label map; nothing is changed unless every voxel is what the runs say.

    Raises
    ------
    OutOfStep
    """
    at = indices(runs)
    wrong = labels[at] != np.repeat(runs["before"], runs["count"])
    if wrong.any():
        k = int(at[np.argmax(wrong)])
        raise OutOfStep(f"voxel {k} has label {int(labels[k])}, not what the edit says: the page shows an older state")
    labels[at] = np.repeat(runs["after"], runs["count"])


def gains(runs: Runs) -> dict[int, int]:
    """Voxels that each label gains; negative: loses."""
    out: dict[int, int] = {}
    for field, sign in (("before", -1), ("after", 1)):
        values, where = np.unique(runs[field], return_inverse=True)
        sums = np.bincount(where, weights=runs["count"], minlength=values.size)
        for label, voxels in zip(values.tolist(), sums, strict=True):
            out[label] = out.get(label, 0) + sign * int(voxels)
    return {label: n for label, n in out.items() if label and n}


def changed_voxels(runs: Runs) -> int:
    """Number of voxels that the runs change."""
    return int(runs["count"].sum(dtype=np.int64))
