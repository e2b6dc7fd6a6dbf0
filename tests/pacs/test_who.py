"""Who lies there, for a screen that was given the node's site file."""

from tests.pacs.conftest import ct_series, send

from fluoronav.case import load_case
from fluoronav.cli.display import _who
from fluoronav.pacs.who import Who


def test_the_person_behind_a_case_of_the_store_is_known_and_behind_another_nobody(node):
    sent = ct_series()
    send(node.port, sent)
    case = load_case(node.case()).id
    person = Who(node.site).of_case(case)
    assert person is not None and person.patient_id == sent[0].PatientID and person.name == str(sent[0].PatientName)
    shown = _who(node.file)(case)
    assert shown.patient_id == sent[0].PatientID and "^" not in shown.name and shown.name
    for other in ("", "thoracic-spine@c449157b05f2", "PAAAAAAAAAAAAAAAA@0123456789ab"):
        assert Who(node.site).of_case(other) is None and _who(node.file)(other).name == ""
    assert _who(None)(case).name == ""
