"""From what the detector counted to what the registration and the display read."""

from fluoronav.enhancement.attenuation import AttenuationStage

__all__ = ["AttenuationStage"]
