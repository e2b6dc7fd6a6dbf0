"""What the surgeon is told: distances, the plan, outlines and alerts."""

from fluoronav.guidance.alerts import AlertBook
from fluoronav.guidance.stage import GuidanceStage

__all__ = ["AlertBook", "GuidanceStage"]
