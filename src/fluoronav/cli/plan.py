"""`fluoronav plan`: one module per verb."""

from __future__ import annotations

import argparse

from fluoronav.cli import (
    plan_check,
    plan_export,
    plan_level,
    plan_measure,
    plan_model,
    plan_screws,
    plan_segment,
    plan_views,
)
from fluoronav.cli.arguments import add_family

# In the order of the help text.
_MODULES = (plan_segment, plan_level, plan_measure, plan_screws, plan_check, plan_views, plan_export, plan_model)


def add_verbs(verbs: argparse._SubParsersAction) -> None:
    family = add_family(
        verbs,
        "plan",
        "plan before surgery: segment a CT, measure it, propose screws, check and export the plan",
        "fluoronav plan segment ct/ --engine atlas --out case/",
    )
    for module in _MODULES:
        module.add_verbs(family)
