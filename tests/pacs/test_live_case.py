"""Whose results a live case's are: the node's own case, unchanged, or nobody's."""

import pytest
from pydicom import dcmread
from tests.pacs.conftest import ct_series, send

from fluoronav.case import load_case
from fluoronav.pacs.database import Database
from fluoronav.pacs.identities import Identities
from fluoronav.pacs.live_case import LiveCaseError, source_of_case
from fluoronav.pacs.outgoing import DATABASE
from fluoronav.pacs.pseudonyms import Pseudonyms


def test_a_report_that_would_land_on_another_patient_is_refused(node):
    send(node.port, ct_series())
    folder, site = node.case(), node.site
    database = Database(site.folder / DATABASE)
    identities, case = Identities(database, Pseudonyms.load(site.key)), load_case(folder).id
    assert source_of_case(site, database, identities, case).first.PatientID == folder.name
    with pytest.raises(LiveCaseError, match="by another content of case"):
        source_of_case(site, database, identities, f"{folder.name}@0123456789ab")
    for path in (folder / "ct").iterdir():
        dataset = dcmread(path)
        dataset.PatientID = "PAAAAAAAAAAAAAAAA"
        dataset.save_as(path)
    with pytest.raises(LiveCaseError, match="is another patient's than the case") as refused:
        source_of_case(site, database, identities, case)
    assert "PAAAAAAAAAAAAAAAA" not in str(refused.value)
    database.close()
