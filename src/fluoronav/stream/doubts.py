"""What the witness in the picture holds against the pose and the tools."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Doubts:
    """What the picture says against a frame's results, in words; empty where it says nothing.

    Attributes
    ----------
    pose : str
        Against the registration.
    tools : mapping of str to str
        Against the places of tracked tools, by their ids.
    """

    pose: str = ""
    tools: Mapping[str, str] = field(default_factory=dict[str, str])
