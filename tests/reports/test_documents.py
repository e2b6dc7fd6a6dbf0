import io
import json
import os
import shutil
import subprocess
import sys

import pydicom
import pytest
from tests.dicom.objects.scene import errors_of
from tests.reports.briefed_case import WHO, briefed_case
from tests.reports.conftest import briefing, words

from fluoronav.cli import main
from fluoronav.planning.plan.revisions import PlanRevisions


def names():
    """What tells who the patient is, in each form that a text may have it."""
    values = [v for k, v in WHO.items() if k != "PatientName"]
    return [*values, "Zimmerfrau", "Zoe", "Quirin", "1951-02-03"]


@pytest.fixture(scope="module")
def named(tmp_path_factory):
    """A case that was made from DICOM with a patient's name in it: not approved."""
    return briefed_case(tmp_path_factory.mktemp("named") / "P9XZ", dicom=True, approve=False)


@pytest.fixture(scope="module")
def draft(named, tmp_path_factory, pdf_pages):
    out = tmp_path_factory.mktemp("out") / "briefing.pdf"
    briefing(named, out)
    return out


def test_a_draft_says_so_on_every_page_and_pages_are_numbered(draft, pdf_pages):
    pages = pdf_pages(draft.read_bytes())
    assert 1 <= len(pages) <= 3
    for k, text in enumerate(pages):
        # Once in the line at the top, and once across the page.
        assert text.count("DRAFT") >= 2 and f"page {k + 1} of {len(pages)}" in text


def test_an_approved_plan_has_no_draft_in_its_pdf(approved, tmp_path, pdf_pages):
    briefing(approved, tmp_path / "a.pdf")
    pages = pdf_pages((tmp_path / "a.pdf").read_bytes())
    assert len(pages) <= 3 and not any("DRAFT" in text for text in pages) and "APPROVED" in pages[0]


def test_pdf_and_html_say_the_same(named, draft, tmp_path, pdf_pages):
    said = briefing(named, tmp_path / "a.html")
    text = " ".join(pdf_pages(draft.read_bytes()))
    for screw in said["screws"]:
        assert screw["name"] in text and f"{screw['clearance_mm']:.1f}" in text
    for card in said["views"]["cards"]:
        assert card["words"] in text


def test_every_page_is_a4_and_has_its_pictures(draft, pdf_pages):
    from pypdf import PdfReader

    reader = PdfReader(io.BytesIO(draft.read_bytes()))
    for page in reader.pages:
        assert [round(float(v) / 72 * 25.4) for v in page.mediabox[2:]] == [210, 297]
    assert len({image.data for page in reader.pages for image in page.images}) == 3  # pages share their list


def test_no_document_holds_an_identifier_of_the_patient(named, draft, tmp_path, pdf_pages):
    from pypdf import PdfReader

    briefing(named, tmp_path / "a.html")
    texts = {
        "html": (tmp_path / "a.html").read_text(),
        "json": (tmp_path / "a.html.json").read_text(),
        "pdf": " ".join(pdf_pages(draft.read_bytes())),
        "pdf's own": str(PdfReader(io.BytesIO(draft.read_bytes())).metadata) + str(draft.read_bytes()),
    }
    assert pydicom.dcmread(named / "ct" / "000.dcm").PatientName == WHO["PatientName"]
    for where, text in texts.items():
        for name in names():
            assert name not in text, (where, name)


def test_a_briefing_goes_into_the_patients_study_as_a_valid_object(named, draft, tmp_path):
    pytest.importorskip("highdicom", reason="the extra `pacs` is not installed")
    if shutil.which("dciodvfy") is None:
        if os.environ.get("CI"):
            pytest.fail("dciodvfy is not installed")
        pytest.skip("dciodvfy is not installed (Debian: dicom3tools)")
    out = tmp_path / "briefing.dcm"
    command = ["dicom", "pdf", str(draft), "--title", "Briefing", "--source", str(named / "ct"), "--out", str(out)]
    assert main(command) == 0
    assert errors_of(out) == []
    made, source = pydicom.dcmread(out), pydicom.dcmread(named / "ct" / "000.dcm")
    assert made.EncapsulatedDocument[: made.EncapsulatedDocumentLength] == draft.read_bytes()
    assert (made.PatientID, made.StudyInstanceUID) == (source.PatientID, source.StudyInstanceUID)
    assert "DRAFT" in made.DocumentTitle


def refused(capsys, *arguments):
    """What a refused briefing says."""
    assert main(["report", "briefing", *map(str, arguments)]) == 1
    said = capsys.readouterr().err
    assert "Traceback" not in said
    return said


def test_a_plan_of_another_ct_or_label_map_is_refused(approved, tmp_path, capsys):
    for key, what in (("ct_hash", "another CT"), ("labels_hash", "another label map")):
        case = shutil.copytree(approved, tmp_path / key)
        plans = PlanRevisions(case)
        plan = plans.newest()
        plans.add(plan.model_copy(update={key: "0" * 64}), parent=plan.revision)
        assert what in refused(capsys, case, "--out", tmp_path / "a.html")
        assert not (tmp_path / "a.html").exists()


def test_a_case_without_a_plan_is_refused_with_what_to_do(approved, tmp_path, capsys):
    case = shutil.copytree(approved, tmp_path / "case")
    shutil.rmtree(case / "plan")
    (case / "plan.yaml").unlink()
    assert "make a plan first" in refused(capsys, case, "--out", tmp_path / "a.html")


def test_a_place_that_cannot_be_written_to_is_refused_before_any_work(approved, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    said = refused(capsys, approved, "--out", tmp_path / "file" / "deep" / "a.html")
    assert "is a file, not a folder" in said and "reading the CT" not in said
    (tmp_path / "b.html").mkdir()
    assert "is a folder" in refused(capsys, approved, "--out", tmp_path / "b.html")
    if os.getuid():  # root may write everywhere
        (tmp_path / "closed").mkdir(mode=0o500)
        assert "cannot be written to" in refused(capsys, approved, "--out", tmp_path / "closed" / "a.html")


def test_another_kind_of_file_is_refused(approved, tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["report", "briefing", str(approved), "--out", str(tmp_path / "a.docx")])
    assert "is neither .pdf nor .html" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("module", "fault", "out", "said"),
    [
        ("jinja2", "ImportError('none')", "a.html", "pip install 'fluoronav[reports]'"),
        ("weasyprint", "ImportError('none')", "a.pdf", "pip install 'fluoronav[reports]'"),
        ("weasyprint", "OSError('cannot load library libpango')", "a.pdf", "apt-get install libpango-1.0-0"),
    ],
)
def test_what_is_not_installed_is_said_with_what_to_install(approved, tmp_path, module, fault, out, said):
    (tmp_path / f"{module}.py").write_text(f"raise {fault}\n")
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-m", "fluoronav", "report", "briefing", str(approved), "--out", str(tmp_path / out)],
        capture_output=True, text=True, env=os.environ | {"PYTHONPATH": path},
    )  # fmt: skip
    assert done.returncode == 1 and said in done.stderr and "reading the CT" not in done.stderr


def test_a_briefing_replaces_the_one_before_and_says_what_it_wrote(approved, tmp_path, capsys):
    (tmp_path / "a.html").write_text("old")
    briefing(approved, tmp_path / "a.html")
    said = capsys.readouterr()
    assert "approved by ada" in said.out and "2 screws" in said.out and "T8: orbital" in said.err
    assert (tmp_path / "a.html").read_text() != "old" and "Pedicle screws" in words((tmp_path / "a.html").read_text())
    assert json.loads((tmp_path / "a.html.json").read_text())["out"] == str(tmp_path / "a.html")
