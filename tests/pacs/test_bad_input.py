"""Objects and connections that a hospital does send, and a node must outlive."""

import socket
import time

import pytest
from pydicom import dcmread
from pydicom.dataelem import RawDataElement
from pydicom.tag import Tag
from pydicom.uid import CTImageStorage, MediaStorageDirectoryStorage, SecondaryCaptureImageStorage, generate_uid
from pynetdicom import AE
from pynetdicom.pdu import P_DATA_TF
from tests.pacs.conftest import ACCESSION, PATIENT_ID, ct_series, send, until

from fluoronav.case import load_case


def captured(**tags):
    """A picture of a screen, as a dataset."""
    (picture,) = ct_series(count=1, SeriesInstanceUID=generate_uid(), ConversionType="WSD", **tags)
    picture.SOPClassUID = picture.file_meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    picture.SOPInstanceUID = picture.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    return picture


@pytest.mark.parametrize("modality", ["XA", "OT"])
def test_an_x_ray_image_as_secondary_capture_is_kept_and_becomes_no_case(node, modality):
    assert send(node.port, [captured(Modality=modality)]) == [0x0000]
    until(lambda: any(f"no case is made of {modality}" in s["reason"] for s in node.status["series"]))
    assert node.status["cases"] == []


@pytest.mark.parametrize(
    "tags",
    [{"BurnedInAnnotation": "YES"}, {"ImageType": ["DERIVED", "SECONDARY", "AXIAL", "SCREEN SAVE"]}],
    ids=["says so", "screen"],
)
def test_images_that_may_show_a_name_in_their_pixels_become_no_case_unremarked(node, tags):
    single = ct_series()
    for keyword, value in tags.items():
        setattr(single[-1], keyword, value)
    assert set(send(node.port, single)) == {0x0000}
    (series,) = node.series(state="refused")
    assert "1 images may have text in their pixels" in series["reason"] and "burned_in" in series["reason"]
    assert node.status["cases"] == []


def test_a_ct_series_of_secondary_captures_is_refused_whatever_the_site_leaves_out(make_node):
    node = make_node(lambda content: content["series"].update(burned_in="set_aside"))
    assert send(node.port, [captured(Modality="CT")]) == [0x0000]
    assert "may have text" in node.series(state="refused")[0]["reason"]


def test_a_site_may_set_them_aside_or_take_them_and_the_case_says_so(make_node):
    node = make_node(lambda content: content["series"].update(burned_in="set_aside"))
    single = ct_series()
    single[-1].BurnedInAnnotation = "YES"
    send(node.port, single)
    assert load_case(node.case()).ct.image.GetSize() == (52, 48, 25)
    assert "1 images may have text" in node.status["cases"][0]["warnings"][0]
    (kept,) = (node.site.folder / "aside").glob("*.dcm")
    assert dcmread(kept).SOPInstanceUID == single[-1].SOPInstanceUID
    other = make_node(lambda content: content["series"].update(burned_in="take"), name="other")
    send(other.port, single)
    assert load_case(other.case()).ct.image.GetSize() == (52, 48, 26)
    assert "the site takes them" in other.status["cases"][0]["warnings"][0]


def test_a_dicomdir_that_is_sent_with_a_series_is_not_taken_and_the_series_is(node, tmp_path):
    ae = AE("STORESCU")
    ae.add_requested_context(MediaStorageDirectoryStorage)
    ae.add_requested_context(CTImageStorage)
    association = ae.associate("127.0.0.1", node.port, ae_title="FLUORO_PLAN")
    assert [c.abstract_syntax for c in association.accepted_contexts] == [CTImageStorage]
    for d in ct_series():
        assert association.send_c_store(d).Status == 0x0000
    association.release()
    assert load_case(node.case()).ct.image.GetSize() == (52, 48, 26)


def test_a_sender_that_falls_silent_in_the_middle_of_an_object_is_let_go_and_its_series_comes_again(make_node):
    def short(content):
        content["node"] |= {"acse_timeout_s": 2, "network_timeout_s": 2}

    node = make_node(short)
    single = ct_series()
    ae = AE("STORESCU")
    ae.add_requested_context(CTImageStorage, single[0].file_meta.TransferSyntaxUID)
    association = ae.associate("127.0.0.1", node.port, ae_title="FLUORO_PLAN")
    assert association.send_c_store(single[0]).Status == 0x0000
    sent = []
    send_pdu = association.dul.send_pdu

    def half(primitive):
        # The command, and half of the data; then no byte more, and no end of the connection.
        sent.append(primitive)
        if len(sent) == 1:
            send_pdu(primitive)
            time.sleep(0.5)
        elif len(sent) == 2:
            pdu = P_DATA_TF()
            pdu.from_primitive(primitive)
            whole = pdu.encode()
            wire = association.dul.socket
            assert wire is not None and wire.socket is not None
            wire.socket.sendall(whole[: len(whole) // 2])

    association.dul.send_pdu = half
    association.send_c_store(single[1])
    until(lambda: node.status["refused"].get("association aborted or broken"), what=node.log.read_text())
    assert set(send(node.port, single)) == {0x0000}
    assert load_case(node.case()).ct.image.GetSize() == (52, 48, 26)


def test_a_connection_that_is_closed_for_writing_alone_holds_nobody_up(node):
    with socket.create_connection(("127.0.0.1", node.port)) as s:
        s.sendall(b"\x01\x00\x00\x00\x10\x00")
        s.shutdown(socket.SHUT_WR)
        s.settimeout(20)
        while s.recv(100):
            pass
    assert set(send(node.port, ct_series(count=2))) == {0x0000}


@pytest.mark.parametrize(
    ("declared", "encoding", "name"),
    [
        ("ISO_IR 100", "latin-1", "Müller^Jörg"),
        ("", "latin-1", "Müller^Jörg"),
        ("", "utf-8", "Müller^山田"),
        (["", "ISO 2022 IR 87"], "iso2022_jp", "Yamada^Tarou=山田^太郎"),
        ("GB18030", "gb18030", "Wang=王^小东"),
    ],
    ids=["latin 1", "absent latin 1", "absent UTF-8", "Japanese", "Chinese"],
)
def test_a_name_goes_in_and_comes_back_in_whatever_characters_it_came(
    make_node, orthanc, tmp_path, declared, encoding, name
):
    def change(content):
        content["peers"]["pacs"], content["results_to"] = {"dicomweb": orthanc.web}, "pacs"

    node = make_node(change)
    original = ct_series()
    for d in original:
        d.SpecificCharacterSet = declared or "ISO_IR 100"
        if declared:
            d.PatientName = name
        else:
            del d.SpecificCharacterSet
            raw = name.encode(encoding)
            raw += b" " * (len(raw) % 2)
            d[0x00100010] = RawDataElement(Tag(0x00100010), "PN", len(raw), raw, 0, False, True)
    assert set(send(node.port, original)) == {0x0000}
    case = node.case()
    result = dcmread(next((case / "ct").iterdir()))
    assert name.partition("^")[0] not in str(result)
    result.SOPInstanceUID = result.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    result.SeriesInstanceUID = generate_uid()
    result.save_as(tmp_path / "result.dcm", enforce_file_format=True)
    done = node.command("send", tmp_path / "result.dcm", "--site", node.file, "--wait", 40)
    assert done.returncode == 0, done.stderr
    (sent,) = orthanc.tags
    assert sent["PatientName"] == name
    assert (sent["PatientID"], sent["AccessionNumber"]) == (PATIENT_ID, ACCESSION)
