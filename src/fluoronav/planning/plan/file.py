"""Reading and writing ``plan.yaml``."""

from __future__ import annotations

from pathlib import Path

import yaml

from fluoronav.durable import written
from fluoronav.planning.plan.schema import Plan
from fluoronav.validation import read_yaml_of

_MOST_YAML_BYTES = 4_000_000  # chosen: a plan is some pages


class PlanError(ValueError):
    """A plan that cannot be used; the text names the file, what is wrong and what to do."""


def read_plan(path: Path) -> Plan:
    """Reads a plan.

    Raises
    ------
    PlanError
    """
    return read_yaml_of(path, Plan, PlanError, most_bytes=_MOST_YAML_BYTES, what="plan")


def write_plan(plan: Plan, path: Path) -> None:
    """Writes a plan as a whole, on the disk when this returns."""
    text = yaml.safe_dump(plan.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=120)
    written(path, text.encode())
