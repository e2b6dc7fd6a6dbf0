"""The instruments of an operating room: the tools and the tracker that its cases share."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, model_validator

from fluoronav.case.file import Tracker, read_with_tools
from fluoronav.case.schema import Strict
from fluoronav.case.tool import Tool


class Instruments(Strict):
    """Keys ``tools`` and ``tracker`` as in ``case.yaml``, in a file of their own."""

    tools: tuple[Tool, ...] = Field(min_length=1)
    tracker: Tracker | None = None

    @model_validator(mode="after")
    def _of_a_room(self) -> Instruments:
        names = [t.id for t in self.tools] + ([self.tracker.reference] if self.tracker else [])
        double = {n for n in names if names.count(n) > 1}
        if double:
            raise ValueError(f"{sorted(double)[0]!r} is there twice")
        if self.tracker is not None and self.tracker.T_ct_reference is not None:
            raise ValueError(
                "tracker.T_ct_reference is the marker's place on one patient; it belongs into that patient's case.yaml"
            )
        return self


def read_instruments(path: Path) -> Instruments:
    """Reads the instruments of a room.

    Parameters
    ----------
    path : Path
        YAML with ``tools`` and ``tracker``; lengths in mm. A tool's ``file`` is relative to it.

    Raises
    ------
    CaseError
        The file is no such file, or the marker's place on a patient is in it.
    """
    return read_with_tools(
        Instruments, path, holds="the keys `tools` and `tracker`",
        unknown_key="unknown key; a file of instruments has `tools` and `tracker`",
    )  # fmt: skip
