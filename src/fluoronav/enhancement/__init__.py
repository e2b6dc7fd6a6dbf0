"""From what the detector counted to what the registration and the display read."""

from fluoronav.enhancement.attenuation import AttenuationStage
from fluoronav.enhancement.detector import DetectorCalibration, DetectorError
from fluoronav.enhancement.view import Picture, ViewStage

__all__ = ["AttenuationStage", "DetectorCalibration", "DetectorError", "Picture", "ViewStage"]
