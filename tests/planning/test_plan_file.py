"""``plan.yaml``: written and read again, and refused with the field's name."""

import pytest
import yaml

from fluoronav.planning.plan.file import PlanError, read_plan, write_plan
from fluoronav.planning.plan.schema import Plan, Screw

SCREW = Screw(
    id="T8-left", origin="proposed", level="T8", side="left", entry_ct=(14.4, 109.8, -158.0),
    tip_ct=(5.1, 75.1, -158.0), diameter_mm=4.5, length_mm=35.0, clearance_mm=1.2, breach_mm=0.0, grade="A",
)  # fmt: skip
PLAN = Plan(case="P2KQX7NCL3FWH5MDA", revision=1, ct_hash="a" * 64, made="2026-01-01T12:00:00+00:00", items=(SCREW,))


def test_a_plan_is_read_as_it_was_written(tmp_path):
    write_plan(PLAN, tmp_path / "plan.yaml")
    assert read_plan(tmp_path / "plan.yaml") == PLAN


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("state", "final", "state"),
        ("ct_hash", "abc", "ct_hash"),
        ("surgeon", "x", "surgeon: unknown key"),
        ("items", [{**SCREW.model_dump(mode="json"), "length_mm": 0.035}], "length_mm"),
    ],
)
def test_what_is_wrong_with_a_plan_is_said_with_its_field(tmp_path, key, value, said):
    path = tmp_path / "plan.yaml"
    path.write_text(yaml.safe_dump({**PLAN.model_dump(mode="json"), key: value}))
    with pytest.raises(PlanError, match=said):
        read_plan(path)
