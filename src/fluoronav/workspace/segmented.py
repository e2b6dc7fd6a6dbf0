"""Takes what a segmentation engine wrote into a case, without touching what people have drawn or approved."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from fluoronav.case import read_volume
from fluoronav.planning.anatomy import OWN_LABELS
from fluoronav.planning.revisions import Revision, Revisions
from fluoronav.planning.segmentation.engine import SegmentedStructure
from fluoronav.workspace.label_maps import described, on_grid, voxel_counts
from fluoronav.workspace.published import publish
from fluoronav.workspace.scan import Scan

_PERSON = "person"

Map = NDArray[np.uint16]
Structures = tuple[SegmentedStructure, ...]


def kept_segmentation(folder: Path, out: Path, scan: Scan, engine: str, parent: int, branch: str) -> Revision:
    """A revision of what an engine wrote. Takes the memory of whole volumes: for a process of its own.

    Parameters
    ----------
    folder : Path
        The case's.
    out : Path
        A draft case by ``fluoronav plan segment``.
    scan : Scan
    engine : str
    parent : int
        The newest revision, on which it is laid; 0 for none.
    branch : str
        Empty for the main line.

    Raises
    ------
    CaseError, RevisionError, Conflict
    """
    revisions, made = Revisions(folder), Revisions(out)
    drafted = made.newest()
    path = made.labels_path(drafted.number) if drafted else out / "labels.nii.gz"
    labels = sitk.GetArrayFromImage(on_grid(read_volume(path).image, scan)).astype(np.uint16)
    found = drafted.structures if drafted else described(voxel_counts(labels), {}, scan, engine)
    if parent:
        below = sitk.GetArrayFromImage(read_volume(revisions.labels_path(parent)).image).astype(np.uint16)
        labels, found = laid_over(below, revisions.read(parent).structures, labels, found)
    counts = voxel_counts(labels)
    structures = tuple(
        replace(s, voxels=counts[s.label], volume_cm3=round(counts[s.label] * scan.voxel_cm3, 4))
        for s in sorted(found, key=lambda s: s.label)
        if s.label in counts
    )
    kind = np.uint8 if max([0, *counts]) < 256 else np.uint16
    revision = revisions.add(
        scan.image(labels.astype(kind)), structures, author=drafted.author if drafted else engine,
        ct_hash=scan.ct_hash, parent=parent, branch=branch, note=f"segmented by {engine}",
    )  # fmt: skip
    if not branch:
        publish(folder)
    return revision


def laid_over(below: Map, old: Structures, labels: Map, new: Structures) -> tuple[Map, Structures]:
    """New structures on those of a revision.

    What a person has drawn or approved stays. A structure of the same name is replaced; other structures stay where the
    new ones leave them room.

    Parameters
    ----------
    below, labels : array of uint16, shape (z, y, x)
        Of the revision, and new.
    old, new : tuple of SegmentedStructure
    """
    firm = {s.name for s in old if s.state == "approved" or s.engine == _PERSON}
    again = {s.name for s in new}
    out, kept = below.copy(), {s.name: s for s in old if s.name in firm or s.name not in again}
    for s in old:
        if s.name not in kept:
            out[below == s.label] = 0
    solid = np.isin(below, [s.label for s in old if s.name in firm])
    taken = {s.label for s in kept.values()}
    for s in new:
        if s.name in firm:
            continue
        label = s.label if s.label not in taken else next(k for k in range(OWN_LABELS[0], 65_536) if k not in taken)
        taken.add(label)
        out[(labels == s.label) & ~solid] = label
        kept[s.name] = replace(s, label=label)
    return out, tuple(kept.values())
