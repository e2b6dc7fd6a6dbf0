"""Pseudonyms, the sealed table, de-identification by the standard's table, and text in any character set."""

from io import BytesIO

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import Dataset, dcmread
from pydicom.datadict import dictionary_VR
from pydicom.sequence import Sequence
from pydicom.uid import generate_uid
from tests.pacs.conftest import ct_series

from fluoronav.pacs.completeness import missing_slices
from fluoronav.pacs.database import Database, DatabaseError
from fluoronav.pacs.deidentify import actions, deidentify
from fluoronav.pacs.header import HeaderError, read_header
from fluoronav.pacs.identities import PATIENT, Identities, Identity, module_of
from fluoronav.pacs.pseudonyms import Pseudonyms, SiteKeyError

KEY = bytes(range(32))
OURS = Pseudonyms(KEY)


def stored(dataset, tmp_path, name="x.dcm"):
    path = tmp_path / name
    dataset.save_as(path, enforce_file_format=True)
    return path


@given(st.text(max_size=40), st.text(max_size=40))
def test_a_pseudonym_is_the_same_for_the_same_patient_and_says_nothing(issuer, patient_id):
    name = OURS.patient(issuer, patient_id)
    assert name == OURS.patient(f" {issuer}", f"{patient_id} ") and name[0] == "P" and len(name) == 17
    assert name.isalnum() and name != Pseudonyms(bytes(32)).patient(issuer, patient_id)


def test_the_issuer_is_part_of_the_patient():
    assert OURS.patient("A", "1") != OURS.patient("B", "1")
    assert OURS.patient("A", "B1") != OURS.patient("AB", "1")


@given(st.integers(0, 2**120))
def test_a_uid_of_ours_is_a_uid(number):
    uid = OURS.uid(f"1.2.{number}")
    assert uid.startswith("2.25.") and len(uid) <= 64 and uid[5] != "0"


def test_what_is_sealed_opens_under_its_own_key_alone():
    sealed = OURS.sealed("patient/P1", b"Zoe")
    assert b"Zoe" not in sealed and OURS.opened("patient/P1", sealed) == b"Zoe"
    with pytest.raises(SiteKeyError, match="put the key back"):
        Pseudonyms(bytes(32)).opened("patient/P1", sealed)
    with pytest.raises(SiteKeyError):
        OURS.opened("patient/P2", sealed)
    with pytest.raises(SiteKeyError):
        OURS.opened("patient/P1", sealed[:-1] + bytes([sealed[-1] ^ 1]))


def test_a_site_key_that_is_not_there_or_too_short_is_refused(tmp_path):
    with pytest.raises(SiteKeyError, match="site init"):
        Pseudonyms.load(tmp_path / "site.key")
    (tmp_path / "site.key").write_bytes(b"short")
    with pytest.raises(SiteKeyError, match="has 5 bytes; a site key has 32"):
        Pseudonyms.load(tmp_path / "site.key")


TEXT_VRS = ("LO", "SH", "PN", "ST", "LT", "UT", "AE", "UC")
NAMED = [t for t, a in sorted(actions().items()) if t[0] not in (0x0002, 0x0004)]


def dictionary(tag):
    try:
        return dictionary_VR(tag)
    except KeyError:
        return ""


@pytest.mark.parametrize("nested", [False, True], ids=["top", "in a sequence"])
def test_every_text_of_the_profiles_table_is_gone(nested):
    (dataset,) = ct_series(count=1)
    item = dataset if not nested else Dataset()
    put = 0
    for tag in NAMED:
        vr = dictionary(tag)
        if vr in TEXT_VRS:
            item.add_new(tag, vr, "SECRET")
            put += 1
        elif vr in ("DA", "DT"):
            item.add_new(tag, vr, "20251224")
            put += 1
    assert put > 250
    if nested:
        dataset.DerivationCodeSequence = Sequence([item])
    deidentify(dataset, OURS, "PAAAA")
    out = BytesIO()
    dataset.save_as(out, enforce_file_format=True)
    for word in (b"SECRET", b"20251224", b"Zimmerfrau", b"Klinikum"):
        assert word not in out.getvalue()
    assert dataset.PatientID == dataset.PatientName == "PAAAA" and dataset.PatientIdentityRemoved == "YES"
    assert not any(e.tag.is_private for e in dataset)


def test_uids_are_replaced_alike_everywhere_and_registered_ones_stay():
    a, b = ct_series(count=2)
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = b.SOPClassUID, b.SOPInstanceUID
    a.SourceIrradiationEventSequence = Sequence([item])
    old = b.SOPInstanceUID
    deidentify(a, OURS, "P")
    deidentify(b, OURS, "P")
    assert b.SOPInstanceUID == OURS.uid(old) == b.file_meta.MediaStorageSOPInstanceUID
    assert a.StudyInstanceUID == b.StudyInstanceUID and a.SOPClassUID == item.ReferencedSOPClassUID
    assert a.SourceIrradiationEventSequence[0].ReferencedSOPInstanceUID == b.SOPInstanceUID


@pytest.mark.parametrize(
    ("declared", "encoding", "name"),
    [
        ("ISO_IR 100", "latin-1", "Müller^Jörg"),
        ("ISO_IR 192", "utf-8", "山田^太郎"),
        (None, "utf-8", "Müller^山田"),
        (None, "latin-1", "Müller^Jörg"),
        ("ISO_IR 6", "utf-8", "Müller^山田"),
        ("ISO_IR 192", "latin-1", "Müller^Jörg"),
        ("NONSENSE", "utf-8", "山田^太郎"),
    ],
    ids=["latin 1", "UTF-8", "absent UTF-8", "absent latin 1", "wrong: ASCII", "wrong: UTF-8", "unknown"],
)
def test_a_name_survives_an_absent_or_wrong_character_set(tmp_path, declared, encoding, name):
    (single,) = ct_series(count=1, PatientName="NAMEHERE^XX")
    if declared:
        single.SpecificCharacterSet = declared if declared != "NONSENSE" else "ISO_IR 100"
    content = stored(single, tmp_path).read_bytes()
    raw = name.encode(encoding)
    raw += b" " * (len(raw) % 2)
    at = content.index(b"NAMEHERE^XX")
    content = content[: at - 2] + len(raw).to_bytes(2, "little") + raw + content[at + 12 :]
    if declared == "NONSENSE":
        content = content.replace(b"ISO_IR 100", b"NONSENSE  ")
    path = tmp_path / "raw.dcm"
    path.write_bytes(content)
    from fluoronav.pacs.intake import _decoded

    header = _decoded(dcmread(path, stop_before_pixels=True))
    module = dcmread(BytesIO(module_of(header, PATIENT)))
    assert str(module.PatientName) == name


def test_the_table_gives_back_who_it_was_and_a_stranger_stays_as_it_is(tmp_path):
    database = Database(tmp_path / "d.sqlite")
    table = Identities(database, OURS)
    (single,) = ct_series(count=1)
    header = dcmread(stored(single, tmp_path), stop_before_pixels=True)
    study = OURS.uid(single.StudyInstanceUID)
    module = module_of(header, PATIENT)
    identity = Identity("PX", study, module, module_of(header, ("StudyDate",)), {study: single.StudyInstanceUID})
    with database.transaction() as sql:
        table.add(sql, identity)
    result = Dataset()
    result.PatientID, result.StudyInstanceUID, result.SOPInstanceUID = "PX", study, generate_uid()
    assert table.reassociated(result)
    assert (result.PatientID, result.StudyDate) == (single.PatientID, single.StudyDate)
    assert result.StudyInstanceUID == single.StudyInstanceUID
    stranger = Dataset()
    stranger.PatientID = "PY"
    assert not table.reassociated(stranger) and stranger.PatientID == "PY"
    assert b"Zimmerfrau" not in (tmp_path / "d.sqlite").read_bytes() + (tmp_path / "d.sqlite-wal").read_bytes()


def test_a_header_is_read_no_further_than_needed_and_a_deflated_bomb_stays_small(tmp_path):
    import zlib

    from pydicom.filewriter import write_file_meta_info
    from pydicom.uid import DeflatedExplicitVRLittleEndian

    (single,) = ct_series(count=1)
    plain = stored(single, tmp_path).read_bytes()
    meta_end = read_header(tmp_path / "x.dcm").digest_offset
    single.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    out = BytesIO()
    out.write(b"\0" * 128 + b"DICM")
    write_file_meta_info(out, single.file_meta)
    deflater = zlib.compressobj(9, zlib.DEFLATED, -15)
    bomb = deflater.compress(plain[meta_end:] + bytes(300 * 2**20)) + deflater.flush()
    path = tmp_path / "bomb.dcm"
    path.write_bytes(out.getvalue() + bomb)
    assert read_header(path).patient_id == single.PatientID
    path.write_bytes(out.getvalue() + b"\xff" * 500)
    with pytest.raises(HeaderError, match="damaged"):
        read_header(path)


@pytest.mark.parametrize("uid", ["../../etc/passwd", "1.2.3/4", "1" * 65])
def test_a_uid_that_is_none_never_becomes_a_name(tmp_path, uid):
    (single,) = ct_series(count=1)
    content = stored(single, tmp_path).read_bytes()
    old = str(single.SeriesInstanceUID).encode()
    new = uid.encode().ljust(len(old), b"\0")[: len(old)] if len(uid) <= len(old) else b"1" * len(old)
    (tmp_path / "x.dcm").write_bytes(content.replace(old, new))
    if len(uid) > 64:
        return
    with pytest.raises(HeaderError, match="SeriesInstanceUID is no UID"):
        read_header(tmp_path / "x.dcm")


def places(datasets, tmp_path):
    return [read_header(stored(d, tmp_path)).place for d in datasets]


def test_gaps_are_counted_inside_the_stack_and_localizers_are_none(tmp_path):
    single = ct_series()
    scout = ct_series(count=1)[0]
    scout.ImageOrientationPatient = [1, 0, 0, 0, 0, -1]
    scout.ImagePositionPatient = [0, 0, 4000]
    assert missing_slices(places([*single, scout], tmp_path)) == 0
    assert missing_slices(places(single[:4] + single[5:9] + single[11:], tmp_path)) == 3
    assert missing_slices(places(single[3:], tmp_path)) == 0
    assert missing_slices(places(single[:2], tmp_path)) == 0
    assert missing_slices([]) == 0


def test_a_database_of_a_newer_version_or_no_database_is_refused(tmp_path):
    path = tmp_path / "n.sqlite"
    with Database(path).transaction() as sql:
        sql.execute("PRAGMA user_version = 99")
    with pytest.raises(DatabaseError, match="newer fluoronav"):
        Database(path)
    (tmp_path / "text.sqlite").write_text("no database " * 100)
    with pytest.raises(DatabaseError, match=r"text\.sqlite: cannot be opened"):
        Database(tmp_path / "text.sqlite")
