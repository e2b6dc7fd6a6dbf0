"""2D/3D registration: a patient's pose from one exposure, by patch-normalised Gauss-Newton on DRRs."""

from fluoronav.imaging.registration.gauss_newton import PoseEstimate, refine
from fluoronav.imaging.registration.patches import PatchLevel, choose_patches
from fluoronav.imaging.registration.search import InitialSearch

__all__ = ["InitialSearch", "PatchLevel", "PoseEstimate", "choose_patches", "refine"]
