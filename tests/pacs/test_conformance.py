"""The conformance statement says what a running node really offers, and no more."""

import re
from pathlib import Path

import pytest
from pydicom.uid import UID_dictionary
from pynetdicom import AE
from pynetdicom.presentation import build_context
from tests.dicom.objects.scene import ACCEPTED, DRAFT, every_object

from fluoronav.pacs.conformance import RESULTS, rendered
from fluoronav.pacs.contexts import ECHO, FIND

PAGE = Path(__file__).parents[2] / "docs" / "conformance.md"
MOST_CONTEXTS = 128  # of one association, PS3.8 9.3.2.2
CT = "1.2.840.10008.5.1.4.1.1.2"


def stated(table):
    """The rows of a table of the page, as lists of cells, without the header."""
    block = re.search(rf"<!-- offered: {table} -->\n(.*?)<!-- end -->", PAGE.read_text(encoding="utf-8"), re.S)[1]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in block.splitlines()]
    return rows[2:]


def uids_of(kind):
    """All UIDs of a kind that the standard's registry has, retired ones too."""
    return [uid for uid, entry in UID_dictionary.items() if entry[1] == kind]


def offered(port, contexts):
    """Pairs of abstract and transfer syntax that the node accepts; and the last association's acceptor."""
    found, acceptor = set(), None
    for k in range(0, len(contexts), MOST_CONTEXTS):
        ae = AE("STORESCU")
        ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = 20
        asked = [build_context(abstract, list(syntaxes)) for abstract, syntaxes in contexts[k : k + MOST_CONTEXTS]]
        association = ae.associate("127.0.0.1", port, asked, ae_title="FLUORO_PLAN")
        if association.is_established:
            found |= {(str(c.abstract_syntax), str(c.transfer_syntax[0])) for c in association.accepted_contexts}
            acceptor = association.acceptor
            association.release()
        else:
            assert association.is_aborted or not association.accepted_contexts
    return found, acceptor


def test_the_page_has_the_tables_of_the_code_as_it_is():
    """`python -m fluoronav.pacs.conformance docs/conformance.md` renews it."""
    page = PAGE.read_text(encoding="utf-8")
    assert rendered(page) == page


def test_the_node_accepts_the_stated_sop_classes_and_no_other(node):
    proposed = sorted({*uids_of("SOP Class"), *(uid for _, uid in stated("storage"))})
    found, _ = offered(node.port, [(uid, ["1.2.840.10008.1.2.1"]) for uid in proposed])
    assert {abstract for abstract, _ in found} == {uid for _, uid in stated("storage")} | {ECHO, FIND}


@pytest.mark.parametrize(("abstract", "column"), [(CT, 2), (ECHO, 3), (FIND, 3)])
def test_the_node_accepts_the_stated_transfer_syntaxes_and_no_other(node, abstract, column):
    # The context ID keeps apart the contexts of one SOP class: each proposes one transfer syntax.
    found, _ = offered(node.port, [(abstract, [uid]) for uid in uids_of("Transfer Syntax")])
    assert {syntax for _, syntax in found} == {row[1] for row in stated("syntaxes") if row[column] == "yes"}


def test_of_several_transfer_syntaxes_the_first_of_the_stated_ones_is_taken(node):
    in_order = [row[1] for row in stated("syntaxes")]
    found, _ = offered(node.port, [(CT, in_order[k:][::-1]) for k in range(len(in_order))])
    assert {syntax for _, syntax in found} == set(in_order)


def test_the_association_has_the_stated_properties(node):
    said = {name: value for name, value in stated("association")}
    _, acceptor = offered(node.port, [(ECHO, ["1.2.840.10008.1.2"])])
    assert str(acceptor.maximum_length) == said["maximum length of a PDU received, bytes"]
    assert acceptor.implementation_class_uid == said["implementation class UID"]
    assert acceptor.implementation_version_name == said["implementation version name"]
    assert not acceptor.asynchronous_operations or acceptor.asynchronous_operations == (1, 1)


def test_the_stated_results_are_those_that_are_made_in_the_stated_transfer_syntax_without_private_attributes():
    made = [*every_object(DRAFT).values(), *every_object(ACCEPTED).values()]
    assert {(d.SOPClassUID, d.file_meta.TransferSyntaxUID) for d in made} == set(RESULTS.items())
    assert not [e for d in made for e in d.iterall() if e.tag.is_private]
    assert all(d.SOPInstanceUID.startswith("2.25.") for d in made)
    assert {str(uid) for uid in RESULTS} <= {uid for _, uid in stated("storage")}
