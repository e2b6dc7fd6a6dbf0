"""Reading and writing ``plan.yaml``."""

from __future__ import annotations

from pathlib import Path

import yaml
from pydantic import ValidationError

from fluoronav.durable import written
from fluoronav.paths import regular_file
from fluoronav.planning.plan.schema import Plan
from fluoronav.validation import first_error

_MOST_YAML_BYTES = 4_000_000  # chosen: a plan is some pages


class PlanError(ValueError):
    """A plan that cannot be used; the text names the file, what is wrong and what to do."""


def read_plan(path: Path) -> Plan:
    """Reads a plan.

    Raises
    ------
    PlanError
    """
    try:
        if regular_file(path).stat().st_size > _MOST_YAML_BYTES:
            raise PlanError(f"{path}: is larger than {_MOST_YAML_BYTES} bytes; this is no plan")
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        return Plan.model_validate(content)
    except ValidationError as error:
        raise PlanError(f"{path}: {first_error(error)}") from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise PlanError(f"{path}: cannot be read as a plan: {error}") from error


def write_plan(plan: Plan, path: Path) -> None:
    """Writes a plan as a whole, on the disk when this returns."""
    text = yaml.safe_dump(plan.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=120)
    written(path, text.encode())
