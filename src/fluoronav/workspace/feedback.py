"""How many voxels of each engine's work people changed: a line for each structure and save, in ``feedback.jsonl``."""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fluoronav.paths import private_opener
from fluoronav.planning.levels import is_move, is_move_back
from fluoronav.planning.revisions import Revision, RevisionError, Revisions
from fluoronav.workspace.cases import CaseStore

FILE = "feedback.jsonl"
_SLICES = 16  # compared at a time; chosen
_PERSON = "person"


def note_feedback(
    folder: Path, revision: Revision, user: str, maps: Callable[[int], NDArray[np.uint16]]
) -> list[dict[str, Any]]:
    """Appends what people have changed of each engine's structures by a revision, against what the engine made.

    Parameters
    ----------
    folder : Path
        The case's.
    revision : Revision
        That was just saved or judged.
    user : str
    maps : callable
        The label map (z, y, x) of a revision's number.
    """
    revisions = Revisions(folder)
    chain = _ancestry(revisions, revision)
    origins: dict[int, dict[int, tuple[str, str]]] = defaultdict(dict)
    for first in reversed(chain):
        for s in first.structures:
            if s.engine != _PERSON and not any(s.label in known for known in origins.values()):
                origins[first.number][s.label] = s.name, s.engine
    now = {s.label: s.state for s in revision.structures}
    noted = {(line["engine"], line["structure"]): line for line in _lines(folder / FILE)}
    time, lines = datetime.now().astimezone().isoformat(timespec="seconds"), []
    for number, made in origins.items():
        counts = _changes(maps(number), maps(revision.number), made)
        for label, (name, engine) in made.items():
            voxels, added, removed = counts[label]
            found = {
                "voxels": voxels, "added": added, "removed": removed, "state": now.get(label, "removed"),
                "share": (added + removed) / max(voxels, 1),
            }  # fmt: skip
            if found.items() <= noted.get((engine, name), {}).items():
                continue
            about = {"time": time, "case": folder.name, "revision": revision.number, "user": user}
            lines.append({**about, "engine": engine, "structure": name, **found})
    if lines:
        with open(folder / FILE, "ab", opener=private_opener) as file:
            file.write("".join(json.dumps(line) + "\n" for line in lines).encode())
            file.flush()
            os.fsync(file.fileno())
    return lines


def feedback(root: Path) -> dict[str, Any]:
    """What people changed of each engine's structures, over all cases; of each case its last line counts.

    Returns
    -------
    dict
        ``cases``: their number. ``structures``: for each engine and structure, number of cases and approvals, voxels,
        mean share changed.
    """
    store, last = CaseStore(root), {}
    for name in store.names():
        for line in _lines(root / name / FILE):
            last[name, line["engine"], line["structure"]] = line
    rows: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for (_, engine, structure), line in last.items():
        rows[engine, structure].append(line)
    table = [
        {
            "engine": engine, "structure": structure, "cases": len(lines),
            "approved": sum(line["state"] == "approved" for line in lines),
            "rejected": sum(line["state"] == "rejected" for line in lines),
            "voxels": sum(line["voxels"] for line in lines),
            "share_changed": float(np.mean([line["share"] for line in lines])),
        }
        for (engine, structure), lines in sorted(rows.items())
    ]  # fmt: skip
    return {"cases": len({case for case, _, _ in last}), "structures": table}


def _ancestry(revisions: Revisions, revision: Revision) -> list[Revision]:
    """The revisions from which one comes, the newest first; one that cannot be read ends the list.

    So does a move of levels: it changed every name and no shape, and is in the audit trail. One that was taken back is
    left out.
    """
    out = [revision]
    while out[-1].parent and not is_move(out[-1]):
        try:
            before = revisions.read(out[-1].parent)
            out.append(revisions.read(before.parent) if is_move_back(out[-1]) else before)
        except RevisionError:
            break
    return out


def _changes(
    before: NDArray[np.uint16], after: NDArray[np.uint16], labels: Mapping[int, Any]
) -> dict[int, tuple[int, int, int]]:
    """Of each label: its voxels before, and how many were added and removed."""
    most = 1 + max(labels)
    total, added, removed = (np.zeros(max(most, 65_536), np.int64) for _ in range(3))
    for k in range(0, before.shape[0], _SLICES):
        a, b = before[k : k + _SLICES], after[k : k + _SLICES]
        where = a != b
        for into, values in ((total, a.reshape(-1)), (added, b[where]), (removed, a[where])):
            counts = np.bincount(values)
            into[: counts.size] += counts
    return {k: (int(total[k]), int(added[k]), int(removed[k])) for k in labels}


def _lines(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a file; what a crash left unfinished is not one."""
    out = []
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return []
    for line in content.splitlines():
        try:
            out.append(json.loads(line))
        except ValueError:
            continue
    return out
