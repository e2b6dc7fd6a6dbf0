"""2D/3D registration: the patient's pose from X-ray images, by Gauss-Newton on patches of DRRs."""

from fluoronav.imaging.registration.gauss_newton import PoseEstimate, refine
from fluoronav.imaging.registration.patches import PatchLevel, choose_patches
from fluoronav.imaging.registration.search import InitialSearch

__all__ = ["InitialSearch", "PatchLevel", "PoseEstimate", "choose_patches", "refine"]
