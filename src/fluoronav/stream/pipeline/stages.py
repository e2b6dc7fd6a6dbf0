"""The stages that a launch file may name. A new stage is added here, and nowhere else in the pipeline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from fluoronav.imaging.inference import InferenceSettings
from fluoronav.site.launch import LaunchError
from fluoronav.stream.detection.stage import DetectionStage
from fluoronav.stream.frame import FrameRecord
from fluoronav.stream.guidance.stage import GuidanceStage
from fluoronav.stream.preprocessing.stage import AttenuationStage
from fluoronav.stream.registration.stage import RegistrationStage
from fluoronav.stream.stage import Stage
from fluoronav.stream.tracking.stage import InstrumentStage
from fluoronav.stream.view.stage import ViewStage
from fluoronav.stream.witness.stage import WitnessStage

# By the name in launch files.
STAGES: dict[str, type[Any]] = {
    stage.name: stage
    for stage in (
        AttenuationStage, RegistrationStage, DetectionStage, InstrumentStage, WitnessStage, GuidanceStage, ViewStage,
    )
}  # fmt: skip
_NEEDED = {f.name for f in fields(FrameRecord) if f.metadata.get("needed")}


def make_stages(names: Sequence[str], inference: InferenceSettings | None = None) -> list[Stage]:
    """The stages of a launch file, in its order."""
    return [_made(STAGES[name], inference or InferenceSettings()) for name in names]


def _made(stage: type[Any], inference: InferenceSettings) -> Stage:
    """A stage; those that run networks are given the settings for them."""
    return stage(inference) if hasattr(stage, "models") else stage()


def check_order(names: Sequence[str], path: Path | None) -> None:
    """Checks that every field is written before it is read.

    A field that no stage of the launch file writes keeps its default, unless a reader can do nothing without it.

    Parameters
    ----------
    names : sequence of str
    path : Path or None
        Of the launch file, for the message.

    Raises
    ------
    LaunchError
    """
    stages = [STAGES[name] for name in names]
    for k, stage in enumerate(stages):
        for field in sorted(stage.reads):
            writers = [s.name for s in stages if field in s.writes]
            if not writers and field in _NEEDED:
                writers = [s.name for s in STAGES.values() if field in s.writes]
            if writers and not any(field in s.writes for s in stages[:k]):
                writer = writers[0]
                raise LaunchError(
                    f"{path}: stages: {stage.name!r} reads what {writer!r} writes ({field}): put {writer!r} before it"
                )
