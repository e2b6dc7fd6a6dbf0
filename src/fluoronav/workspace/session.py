"""A user's working session on a case: a label map that is edited, with undo, kept by a journal."""

from __future__ import annotations

import fcntl
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fluoronav.durable import made_folder
from fluoronav.planning.anatomy import vocabulary
from fluoronav.planning.revisions import Revision
from fluoronav.workspace import delta
from fluoronav.workspace.delta import NOTHING, Indices, Labels, Runs
from fluoronav.workspace.errors import OutOfStep, Refused, WorkspaceError
from fluoronav.workspace.journal import Journal, JournalError
from fluoronav.workspace.scan import Scan

_CARRIED = 200  # steps that can still be undone after saving; chosen: ten times what is asked for
FILE = "session.journal"


@dataclass(frozen=True)
class Base:
    """The revision that a session edits.

    Attributes
    ----------
    revision : Revision or None
        None where the case has none yet: the label map is empty.
    labels : array of uint16, shape (z, y, x)
        Its voxels, read only.
    own : array of uint16, shape (z, y, x)
        The same voxels, to be changed by the session.
    counts : mapping
        Number of voxels of each label.
    """

    revision: Revision | None
    labels: NDArray[np.uint16]
    own: NDArray[np.uint16]
    counts: Mapping[int, int]

    @property
    def number(self) -> int:
        return self.revision.number if self.revision else 0


@dataclass(frozen=True)
class Step:
    """One step that can be undone.

    Attributes
    ----------
    serial : int
        Unique in the session.
    at : int
        Where its record is in the journal.
    what : dict
        ``what`` in words, ``label``, ``names`` given to labels.
    """

    serial: int
    at: int
    what: dict[str, Any] = field(repr=False)


class Session:
    """A working session; not to be used by two threads at a time.

    Parameters
    ----------
    folder : Path
        Where its journal is; it holds a lock on it until it is closed.
    scan : Scan
    """

    def __init__(self, folder: Path, scan: Scan) -> None:
        self.folder, self.scan, self._is_read = made_folder(folder), scan, False
        self._lock = (folder / ".lock").open("wb")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._lock.close()
            raise OutOfStep("this working session is open in another server; end that one first") from error

    @property
    def parent(self) -> int | None:
        """The revision that the journal in its folder is about; None where there is none."""
        path = self.folder / FILE
        if not path.exists():
            return None
        return next((int(head["parent"]) for _, head, _ in Journal(path).records()), None)

    def start(self, base: Base) -> None:
        """Begins a session on a revision; a journal with edits that are not saved is kept under another name."""
        path = self.folder / FILE
        if path.exists() and (not self._is_read or self.unsaved):
            number = 1 + len(list(self.folder.glob("aside-*.journal")))
            path.rename(self.folder / f"aside-{number:04d}.journal")
        self._begin(base, secrets.token_hex(8), 0, [], 0)

    def resume(self, base: Base) -> None:
        """Takes up the journal that is there."""
        journal = Journal(self.folder / FILE)
        records = journal.records()
        _, head, _ = next(records)
        self.journal, self.base, self.id = journal, base, str(head["session"])
        self._reset(int(head["sequence"]), int(head["cursor"]), int(head["serial"]))
        for at, record, runs in records:
            if record["kind"] == "carried":
                self._steps.append(Step(record["serial"], at, record))
                self._at_base = self._applied()
            else:
                self._replay(at, record, runs)
        self._is_read = True

    def close(self) -> None:
        """Lets go of the lock; the journal stays."""
        self._lock.close()

    # What can be asked.

    @property
    def labels(self) -> NDArray[np.uint16]:
        """The working label map (z, y, x)."""
        return self.base.own

    @property
    def unsaved(self) -> int:
        """Number of steps by which it differs from its revision."""
        return len(self._applied() ^ self._at_base)

    @property
    def names(self) -> dict[int, str]:
        """Names of labels: those of the revision, and those that steps gave."""
        out = {s.label: s.name for s in (self.base.revision.structures if self.base.revision else ())}
        for step in self._steps[: self._cursor]:
            out |= {int(k): v for k, v in step.what.get("names", {}).items()}
        return out

    def state(self) -> dict[str, Any]:
        """What the page is told."""
        undone = self._steps[self._cursor :]
        names = self.names
        return {
            "parent": self.base.number, "sequence": self.sequence, "unsaved": self.unsaved,
            "undo": self._cursor, "redo": len(undone),
            "undo_what": self._steps[self._cursor - 1].what["what"] if self._cursor else "",
            "redo_what": undone[0].what["what"] if undone else "",
            "structures": [
                {"label": label, "name": name_in(names, label), "voxels": self.counts.get(label, 0)}
                for label in sorted({k for k, n in self.counts.items() if n} | names.keys())
            ],
            "dtype": "uint8" if max([0, *(k for k, n in self.counts.items() if n)]) < 256 else "uint16",
        }  # fmt: skip

    # What changes it: each is on the disk before it returns.

    def check(self, sequence: int) -> None:
        """Refuses a request that was made on another state."""
        if sequence != self.sequence:
            raise OutOfStep(
                f"the working session is at {self.sequence}, the page at {sequence}: load the labels again",
                sequence=self.sequence,
            )

    def step(self, runs: Runs, what: str, names: dict[int, str] | None = None, key: str = "") -> None:
        """Adds a step.

        Parameters
        ----------
        runs : Runs
            May be empty where names are given.
        what : str
            In words.
        names : dict
            New names of labels.
        key : str
            Tells a request that is sent twice from another.

        Raises
        ------
        OutOfStep
            The voxels are not what the runs say.
        Refused
            A label that nothing is called by.
        DiskFull
        """
        names = names or {}
        self._check_names(runs, names)
        head = {"kind": "step", "what": what, "serial": self._serial, "key": key}
        if names:
            head["names"] = {str(k): v for k, v in names.items()}
        delta.apply(runs, self._flat)
        try:
            at = self.journal.append(head, runs)
        except BaseException:
            delta.apply(delta.inverted(runs), self._flat)
            raise
        self._push(at, head, runs)

    def undo(self) -> tuple[Runs, str]:
        """Takes the last step back; the runs that did it, and what it was."""
        if not self._cursor:
            raise OutOfStep("there is nothing to undo", sequence=self.sequence)
        step = self._steps[self._cursor - 1]
        runs = delta.inverted(self.journal.runs(step.at))
        self._record("undo", runs)
        self._cursor -= 1
        return runs, step.what["what"]

    def redo(self) -> tuple[Runs, str]:
        """Does the next step again."""
        if self._cursor == len(self._steps):
            raise OutOfStep("there is nothing to redo", sequence=self.sequence)
        step = self._steps[self._cursor]
        runs = self.journal.runs(step.at)
        self._record("redo", runs)
        self._cursor += 1
        return runs, step.what["what"]

    def changes(self) -> tuple[Indices, Labels]:
        """Voxels that differ from the revision: their indices, ascending, and their labels now."""
        differing = [s for s in self._steps if s.serial in self._applied() ^ self._at_base]
        differing += self._dropped
        if not differing:
            return np.zeros(0, np.int64), np.zeros(0, np.uint16)
        at = np.unique(np.concatenate([delta.indices(self.journal.runs(s.at)) for s in differing]))
        now = self._flat[at]
        changed = now != self.base.labels.reshape(-1)[at]
        return at[changed], now[changed]

    def rebase(self, base: Base, *, keep_steps: bool) -> None:
        """Goes on from a revision that holds the session's edits; its steps can still be undone."""
        first = max(self._cursor - _CARRIED, 0) if keep_steps else self._cursor
        steps = self._steps[first : len(self._steps) if keep_steps else first]
        carried = [({**s.what, "kind": "carried", "serial": s.serial}, self.journal.runs(s.at)) for s in steps]
        self._begin(base, self.id, self.sequence + 1, carried, self._cursor - first)

    # Inside.

    @property
    def _flat(self) -> Labels:
        return self.base.own.reshape(-1)

    @property
    def last_key(self) -> str:
        """The key of the newest step, if it was the last thing that happened."""
        return self._last_key

    def _applied(self) -> frozenset[int]:
        return frozenset(s.serial for s in self._steps[: self._cursor])

    def _reset(self, sequence: int, cursor: int, serial: int) -> None:
        self.sequence, self._cursor, self._serial = sequence, cursor, serial
        self._steps: list[Step] = []
        # Steps of the revision that were undone and then dropped by a new one: their voxels differ, too.
        self._dropped: list[Step] = []
        self._at_base: frozenset[int] = frozenset()
        self._last_key = ""
        self.counts = dict(self.base.counts)

    def _begin(
        self, base: Base, session: str, sequence: int, carried: list[tuple[dict[str, Any], Runs]], cursor: int
    ) -> None:
        serial = 1 + max([0, *(int(head["serial"]) for head, _ in carried)])
        head = {"session": session, "parent": base.number, "sequence": sequence, "cursor": cursor, "serial": serial}
        Journal.made(self.folder / FILE, [(head, NOTHING), *carried])
        self.resume(base)

    def _replay(self, at: int, record: dict[str, Any], runs: Runs) -> None:
        try:
            delta.apply(runs, self._flat)
        except OutOfStep as error:
            raise JournalError(
                f"{self.journal.path}: does not fit revision {self.base.number}; keep the file, and restart the session"
            ) from error
        if record["kind"] == "step":
            self._push(at, record, runs)
            return
        self._cursor += 1 if record["kind"] == "redo" else -1
        self._counted(runs)

    def _record(self, kind: str, runs: Runs) -> None:
        self.journal.append({"kind": kind}, runs)
        delta.apply(runs, self._flat)
        self._counted(runs)

    def _push(self, at: int, head: dict[str, Any], runs: Runs) -> None:
        self._dropped += [s for s in self._steps[self._cursor :] if s.serial in self._at_base]
        del self._steps[self._cursor :]
        self._steps.append(Step(head["serial"], at, head))
        self._cursor += 1
        self._serial = head["serial"] + 1
        self._counted(runs)
        self._last_key = head.get("key", "")

    def _counted(self, runs: Runs) -> None:
        for label, voxels in delta.gains(runs).items():
            self.counts[label] = self.counts.get(label, 0) + voxels
        self.sequence += 1
        self._last_key = ""

    def _check_names(self, runs: Runs, names: dict[int, str]) -> None:
        known = self.names | names
        for label in np.unique(runs["after"]).tolist():
            if label and label not in known and label not in vocabulary():
                raise Refused(f"label {label} has no name: add a structure first")
        for label, name in names.items():
            if not 0 < label <= 65_535 or not 1 <= len(name) <= 64 or not name.isprintable():
                raise WorkspaceError(f"label {label}, {name[:64]!r}: a label is 1 to 65535, a name 1 to 64 characters")
            other = next((k for k, v in known.items() if v == name and k != label), None)
            if other is not None:
                raise Refused(f"{name!r} is the name of label {other} already")


def name_in(names: dict[int, str], label: int) -> str:
    """The name of a label: that of the session, or the vocabulary's."""
    known = vocabulary().get(label)
    return names.get(label) or (known.name if known else f"label_{label}")
