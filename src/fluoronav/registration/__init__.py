"""2D/3D registration: the patient's pose in every frame, by patch-normalised Gauss-Newton on DRRs."""

from fluoronav.registration.gauss_newton import PoseEstimate, refine
from fluoronav.registration.patches import PatchLevel, choose_patches
from fluoronav.registration.search import InitialSearch
from fluoronav.registration.stage import RegistrationStage

__all__ = ["InitialSearch", "PatchLevel", "PoseEstimate", "RegistrationStage", "choose_patches", "refine"]
