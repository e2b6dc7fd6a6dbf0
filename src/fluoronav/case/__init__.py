"""A case, known before the first frame: CT, structures with thresholds, plan, tools and the prior pose."""

from fluoronav.case.distance import DistanceField, sample_distance, sample_distances
from fluoronav.case.file import CaseFile, PriorPose, Spread, Trajectory
from fluoronav.case.intensity import Hounsfield, to_hounsfield
from fluoronav.case.loading import Bones, Case, Structure, load_case
from fluoronav.case.no_go import NoGo
from fluoronav.case.schema import CaseError
from fluoronav.case.tool import Tool
from fluoronav.case.volume import CtUnits, Volume, read_volume

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
