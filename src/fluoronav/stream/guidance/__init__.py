"""What the surgeon is told: distances, the plan, outlines and alerts."""

from fluoronav.stream.guidance.stage import GuidanceStage

__all__ = ["GuidanceStage"]
