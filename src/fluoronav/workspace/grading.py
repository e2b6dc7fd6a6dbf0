"""Grades screws in the newest label map, fast enough to follow a hand that moves them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from fluoronav.planning.plan.schema import Screw
from fluoronav.planning.revisions import Revision
from fluoronav.workspace.errors import NotInstalled
from fluoronav.workspace.scan import Scan


def graded(screw: Screw, revision: Revision, map_of: Callable[[int], NDArray[np.uint16]], scan: Scan) -> Screw:
    """A screw with its clearance, breach and grade.

    Raises
    ------
    NotInstalled
    """
    raise NotInstalled("screws cannot be graded: this installation has no part for screws")
