"""A case, known before the first frame: CT, structures with thresholds, plan, tools and the prior pose.

What computes distances is imported on its first use: its compiler takes memory that a process which only reads a CT
does not need.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from fluoronav.case.file import CaseFile, PriorPose, Spread, Trajectory
from fluoronav.case.intensity import Hounsfield, to_hounsfield
from fluoronav.case.no_go import NoGo
from fluoronav.case.schema import CaseError
from fluoronav.case.tool import Tool
from fluoronav.case.volume import CtUnits, Volume, read_volume

if TYPE_CHECKING:
    from fluoronav.case.distance import DistanceField, sample_distance, sample_distances
    from fluoronav.case.loading import Bones, Case, Structure, load_case

_MODULES = {
    **dict.fromkeys(("DistanceField", "sample_distance", "sample_distances"), "distance"),
    **dict.fromkeys(("Bones", "Case", "Structure", "load_case"), "loading"),
}

__all__ = [
    "Bones",
    "Case",
    "CaseError",
    "CaseFile",
    "CtUnits",
    "DistanceField",
    "Hounsfield",
    "NoGo",
    "PriorPose",
    "Spread",
    "Structure",
    "Tool",
    "Trajectory",
    "Volume",
    "load_case",
    "read_volume",
    "sample_distance",
    "sample_distances",
    "to_hounsfield",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
