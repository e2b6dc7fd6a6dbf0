"""Saving a working session as a revision, merged with what others have saved meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fluoronav.planning.levels import is_move, is_move_back
from fluoronav.planning.revisions import Conflict, Revision, Revisions
from fluoronav.planning.segmentation.engine import SegmentedStructure
from fluoronav.workspace import delta
from fluoronav.workspace.compare import differing
from fluoronav.workspace.delta import Labels, Runs
from fluoronav.workspace.errors import DiskFull, OutOfStep, Refused
from fluoronav.workspace.label_maps import keep_unpacked
from fluoronav.workspace.published import publish
from fluoronav.workspace.scan import Scan
from fluoronav.workspace.session import Base, Session, name_in

Resolve = Literal["mine", "theirs"]
_TRIES = 4  # how often others may save while a work is merged; chosen


@dataclass(frozen=True)
class Saved:
    """What was saved.

    Attributes
    ----------
    revision : Revision
    changed : array of runs
        What merging changed in the session's own label map.
    """

    revision: Revision
    changed: Runs


@dataclass(frozen=True)
class _Work:
    """What is to become a revision: a label map, on the revision `onto`."""

    labels: NDArray[np.uint16]
    onto: Base
    merged: int
    changes: Runs  # against `onto`
    is_resolved: bool


class Saver:
    """Saves sessions of one case.

    Parameters
    ----------
    folder : Path
        The case's.
    scan : Scan
    base_of : callable
        The base that a revision is (0: none).
    """

    def __init__(self, folder: Path, scan: Scan, base_of: Callable[[int], Base]) -> None:
        self.folder, self.scan, self._base_of = folder, scan, base_of
        self.revisions = Revisions(folder)

    def recover(self, session: Session) -> Revision | None:
        """After a crash in mid-save: the revision that was made of the session, from which it goes on."""
        publish(self.folder)
        for number in reversed(self.revisions.numbers()):
            if number <= session.base.number:
                break
            revision = self.revisions.read(number)
            if (revision.session, revision.sequence) == (session.id, session.sequence):
                session.rebase(self._base_of(number), keep_steps=not revision.merged)
                return revision
        return None

    def save(
        self, session: Session, user: str, *, note: str = "", resolve: Resolve | None = None, branch: str | None = None
    ) -> Saved:
        """Makes a revision of a session, which then goes on from it.

        Parameters
        ----------
        session : Session
        user : str
        note : str
        resolve : "mine" or "theirs", optional
            Whose voxels stay where both have changed the same one differently.
        branch : str, optional
            Branch to save on, empty for the main line; that of the session's revision by default.

        Raises
        ------
        OutOfStep
            Others have changed the same voxels: `structures` names them. Nothing was changed.
        Refused
            There is nothing to save.
        DiskFull
        """
        for _ in range(_TRIES):
            work = self._work(session, branch, resolve)
            try:
                revision = self._add(session, work, user, note, self._branch(session, branch))
            except Conflict:
                continue  # somebody saved in this moment: merged anew
            except (OSError, RuntimeError) as error:  # SimpleITK says RuntimeError where it cannot write
                raise DiskFull(f"the revision cannot be written ({error}); your edits are kept") from error
            return self._go_on(session, work, revision)
        raise OutOfStep("others save all the time: try again")

    def _branch(self, session: Session, branch: str | None) -> str:
        if branch is not None:
            return branch
        return session.base.revision.branch if session.base.revision else ""

    def _work(self, session: Session, branch: str | None, resolve: Resolve | None) -> _Work:
        name = self._branch(session, branch)
        tip = self.revisions.newest(name)
        if tip is None and name:  # a new branch
            return self._unmerged(session)
        if (tip.number if tip else 0) == session.base.number:
            return self._unmerged(session)
        assert tip is not None
        start = self._ancestor(session.base.revision, tip)
        self._check_levels(tip, start)
        flat = session.labels.reshape(-1)
        if start.number == session.base.number:
            at, mine = session.changes()
        else:
            at = differing(start.labels, session.labels)
            mine = flat[at]
        theirs = self._base_of(tip.number)
        there, before = theirs.labels.reshape(-1)[at], start.labels.reshape(-1)[at]
        clash = (there != before) & (there != mine)
        self._check_names(session, tip, start)
        if clash.any() and resolve is None:
            raise OutOfStep(
                f"revision {tip.number} by {tip.author} has changed {int(clash.sum())} of the voxels that you have "
                "changed: keep yours there, keep theirs there, or save as a branch",
                newest=tip.number, author=tip.author, voxels=int(clash.sum()),
                structures=_structures_of(clash, mine, there, before, session, tip),
            )  # fmt: skip
        if resolve == "theirs":
            at, mine, there = at[~clash], mine[~clash], there[~clash]
        runs = delta.from_voxels(at, there, mine)
        delta.apply(runs, theirs.own.reshape(-1))
        return _Work(theirs.own, theirs, session.base.number, runs, bool(clash.any()))

    def _unmerged(self, session: Session) -> _Work:
        at, now = session.changes()
        runs = delta.from_voxels(at, session.base.labels.reshape(-1)[at], now)
        return _Work(session.labels, session.base, 0, runs, False)

    def _ancestor(self, mine: Revision | None, tip: Revision) -> Base:
        """The newest revision from which both come."""
        theirs, at = {0}, tip.number
        while at:
            theirs.add(at)
            at = self.revisions.read(at).parent
        at = mine.number if mine else 0
        while at not in theirs:
            at = self.revisions.read(at).parent
        return self._base_of(at)

    def _check_levels(self, tip: Revision, start: Base) -> None:
        """Refuses edits of vertebrae whose levels were moved meanwhile: they would be merged into their neighbours."""
        at = tip
        while at.number and at.number != start.number:
            if is_move(at) or is_move_back(at):
                raise OutOfStep(
                    f"{at.author} has moved the levels in revision {at.number}, and your edits are of the levels "
                    "before: save them as a branch, or restart the session and edit again",
                    newest=tip.number,
                )
            if not at.parent:
                return
            at = self.revisions.read(at.parent)

    def _check_names(self, session: Session, tip: Revision, start: Base) -> None:
        """Refuses two meanings of one label."""
        before = {s.label: s.name for s in (start.revision.structures if start.revision else ())}
        theirs = {s.label: s.name for s in tip.structures}
        for label, name in session.names.items():
            if name != before.get(label) and theirs.get(label, name) not in (name, before.get(label)):
                raise OutOfStep(
                    f"label {label} is {name!r} with you and {theirs[label]!r} in revision {tip.number}: move yours to "
                    "another label, or save as a branch",
                    newest=tip.number, structures=[{"label": label, "name": name, "voxels": 0}],
                )  # fmt: skip

    def _add(self, session: Session, work: _Work, user: str, note: str, branch: str) -> Revision:
        structures = described(session, work, self.scan)
        known = work.onto.revision.structures if work.onto.revision else ()
        if not work.changes.size and structures == known:
            if work.merged and session.unsaved and work.onto.revision:
                return work.onto.revision  # all that was edited was given up for what others have saved, or is the same
            raise Refused("there is nothing to save: no voxel and no name has changed")
        labels = work.labels
        if max([0, *(s.label for s in structures)]) < 256:
            labels = labels.astype(np.uint8)
        revision = self.revisions.add(
            self.scan.image(labels), structures, author=user, ct_hash=self.scan.ct_hash, parent=work.onto.number,
            note=note, branch=branch, merged=work.merged, session=session.id, sequence=session.sequence,
        )  # fmt: skip
        keep_unpacked(self.folder, revision, work.labels, {s.label: s.voxels for s in structures})
        return revision

    def _go_on(self, session: Session, work: _Work, revision: Revision) -> Saved:
        changed = delta.NOTHING
        if work.merged:
            at = differing(session.labels, work.labels)
            changed = delta.from_voxels(at, session.labels.reshape(-1)[at], work.labels.reshape(-1)[at])
        if not revision.branch:
            publish(self.folder)
        # Steps before a save in which their voxels were given up no longer fit.
        session.rebase(self._base_of(revision.number), keep_steps=not work.merged or not work.is_resolved)
        return Saved(revision, changed)


def described(session: Session, work: _Work, scan: Scan) -> tuple[SegmentedStructure, ...]:
    """The structures of a work: what was edited or renamed is a draft, what was not stays as it was judged."""
    counts = dict(work.onto.counts)
    for label, voxels in delta.gains(work.changes).items():
        counts[label] = counts.get(label, 0) + voxels
    touched = set(np.unique(work.changes["before"]).tolist()) | set(np.unique(work.changes["after"]).tolist())
    known = {s.label: s for s in (work.onto.revision.structures if work.onto.revision else ())}
    base = {s.label: s.name for s in (session.base.revision.structures if session.base.revision else ())}
    given = {k: v for k, v in session.names.items() if base.get(k) != v}
    out = []
    for label in sorted(k for k, n in counts.items() if n > 0):
        old = known.get(label)
        name = given.get(label) or (old.name if old else name_in(session.names, label))
        volume = round(counts[label] * scan.voxel_cm3, 4)
        if old is None:
            out.append(SegmentedStructure(name, label, "person", 1.0, counts[label], volume))
        elif label in touched or name != old.name:
            out.append(
                replace(
                    old, name=name, voxels=counts[label], volume_cm3=volume, state="draft", judged_by="", judged_at=""
                )
            )
        else:
            out.append(old)
    return tuple(out)


def _structures_of(
    clash: NDArray[np.bool_], mine: Labels, theirs: Labels, before: Labels, session: Session, tip: Revision
) -> list[dict[str, Any]]:
    """The structures whose voxels were changed by both, with their number of such voxels."""
    names = {s.label: s.name for s in tip.structures} | session.names
    out: dict[int, int] = {}
    for values in (mine[clash], theirs[clash], before[clash]):
        for label, n in zip(*np.unique(values, return_counts=True), strict=True):
            if label:
                out[int(label)] = max(out.get(int(label), 0), int(n))
    return [{"label": k, "name": name_in(names, k), "voxels": n} for k, n in sorted(out.items())]
