"""Revisions of a plan: ``plan/NNNN.yaml``, never changed, and ``plan.yaml``, a copy of the newest."""

from __future__ import annotations

import hashlib
from datetime import datetime
from pathlib import Path

from fluoronav.durable import locked, written
from fluoronav.planning.plan.file import PlanError, read_plan, write_plan
from fluoronav.planning.plan.schema import Plan


class PlanConflict(PlanError):
    """Somebody else changed the plan meanwhile; `newest` is the number of their revision."""

    def __init__(self, newest: int, parent: int) -> None:
        super().__init__(f"revision {newest} of the plan was made meanwhile, after revision {parent}: load it")
        self.newest, self._parent = newest, parent

    def __reduce__(self) -> tuple[type[PlanConflict], tuple[int, int]]:
        return PlanConflict, (self.newest, self._parent)  # it comes from worker processes, too


class PlanRevisions:
    """The revisions of one case's plan.

    Parameters
    ----------
    case : Path
        The case's folder.
    """

    def __init__(self, case: Path) -> None:
        self.folder = case / "plan"
        self.file = case / "plan.yaml"

    def numbers(self) -> list[int]:
        """Numbers of all revisions, ascending."""
        if not self.folder.is_dir():
            return []
        return sorted(int(p.stem) for p in self.folder.glob("*.yaml") if p.stem.isdigit())

    def path(self, number: int) -> Path:
        """The file of a revision."""
        return self.folder / f"{number:04d}.yaml"

    def read(self, number: int) -> Plan:
        """A revision.

        Raises
        ------
        PlanError
        """
        return read_plan(self.path(number))

    def newest(self) -> Plan | None:
        """The last revision; None where there is none.

        A ``plan.yaml`` that is no revision, since another program wrote it, becomes one: as a draft, whatever it says
        of itself. An old one, which a crash left, is replaced.

        Raises
        ------
        PlanError
        """
        if (self.file.exists() or self.numbers()) and not self._is_current():
            with locked(self.folder):
                self._adopt()
        numbers = self.numbers()
        return self.read(numbers[-1]) if numbers else None

    def add(self, plan: Plan, *, parent: int) -> Plan:
        """Adds a revision; it is on the disk as a whole when this returns.

        Parameters
        ----------
        plan : Plan
            Its revision, parent and time are set here.
        parent : int
            Number of the revision that was edited; 0 for none.

        Raises
        ------
        PlanConflict
            `parent` is not the newest revision.
        PlanError, OSError
        """
        self.newest()
        with locked(self.folder):
            numbers = self.numbers()
            tip = numbers[-1] if numbers else 0
            if parent != tip:
                raise PlanConflict(tip, parent)
            return self._put(plan, tip)

    def _put(self, plan: Plan, tip: int) -> Plan:
        before = _digest(self.path(tip)) if tip else None
        made = datetime.now().astimezone().isoformat(timespec="seconds")
        plan = plan.model_copy(update={"revision": tip + 1, "parent": before, "made": made})
        write_plan(plan, self.path(tip + 1))
        written(self.file, self.path(tip + 1).read_bytes())
        return plan

    def _is_current(self) -> bool:
        numbers = self.numbers()
        return bool(numbers) and self.file.exists() and _digest(self.file) == _digest(self.path(numbers[-1]))

    def _adopt(self) -> None:
        if self._is_current():
            return
        numbers = self.numbers()
        if not self.file.exists() or _digest(self.file) in {_digest(self.path(n)) for n in numbers}:
            written(self.file, self.path(numbers[-1]).read_bytes())
            return
        plan = read_plan(self.file)
        self._put(plan.model_copy(update={"state": "draft", "reviewed_by": "", "approved_by": ""}), max([0, *numbers]))


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
