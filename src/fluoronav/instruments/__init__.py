"""Where the instruments are; for now as an external tracker sees them."""

from fluoronav.instruments.tracker import InstrumentStage, ToolTrack

__all__ = ["InstrumentStage", "ToolTrack"]
