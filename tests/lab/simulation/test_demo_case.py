"""The demo adds the simulation's instruments to a case that names none."""

import numpy as np
import yaml

from fluoronav.case.file import read_case_file
from fluoronav.lab.demo_case import with_instruments
from fluoronav.lab.simulation.tracker import marker_on_patient
from fluoronav.paths import embedded_case


def case_without(tmp_path, *keys, **change):
    content = yaml.safe_load(embedded_case().read_text())
    content = {k: v for k, v in content.items() if k not in keys} | change
    path = tmp_path / "case.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def test_a_case_with_instruments_of_its_own_is_run_as_it_is(tmp_path):
    assert with_instruments(embedded_case(), tmp_path, print) == embedded_case()
    assert list(tmp_path.iterdir()) == []


def test_a_case_without_instruments_gets_the_simulations_and_keeps_everything_else(tmp_path):
    said = []
    path = case_without(tmp_path, "tools", "tracker")
    copy = read_case_file(with_instruments(path, tmp_path / "out", said.append))
    assert [t.id for t in copy.tools] == ["kwire"] and copy.tracker.reference == "patient_reference"
    assert "no tools" in said[0] and "no tracker" in said[1]
    assert copy.ct == tmp_path / "ct.nrrd" and copy.labels == tmp_path / "labels.nrrd", "volumes are not copied"
    own = read_case_file(path)
    assert copy.plan == own.plan and copy.structures == own.structures and copy.rigid == own.rigid
    assert copy.prior == own.prior


def test_the_rooms_tools_stay_and_the_marker_is_put_where_the_simulation_has_it(tmp_path):
    tools = [{"id": "probe", "kind": "pointer", "diameter_mm": 4.0, "length_mm": 180.0, "tip_mm": [0, 0, 172.5]}]
    path = case_without(tmp_path, tools=tools, tracker={"reference": "spine"})
    copy = read_case_file(with_instruments(path, tmp_path / "out", lambda _: None))
    assert copy.tools[0].tip_mm == (0, 0, 172.5) and copy.tracker.reference == "spine"
    assert np.array_equal(copy.tracker.T_ct_reference, marker_on_patient(read_case_file(path)))


def test_a_case_without_a_plan_is_run_as_it_is(tmp_path):
    path = case_without(tmp_path, "tools", "tracker", "plan")
    assert with_instruments(path, tmp_path / "out", print) == path
