"""Where the instruments are: in the picture, as an external tracker sees them, and both together."""

from fluoronav.instruments.detection import DetectionStage
from fluoronav.instruments.stage import InstrumentStage
from fluoronav.instruments.tracker import ToolTrack

__all__ = ["DetectionStage", "InstrumentStage", "ToolTrack"]
