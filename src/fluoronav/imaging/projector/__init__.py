"""Digitally reconstructed radiographs (DRR) and their pose derivatives on the CPU."""

from fluoronav.imaging.projector.attenuation import AttenuationGrid, attenuation_of_hu
from fluoronav.imaging.projector.projector import BLOCK, Projector, dominant_axis, padded_rays

__all__ = ["BLOCK", "AttenuationGrid", "Projector", "attenuation_of_hu", "dominant_axis", "padded_rays"]
