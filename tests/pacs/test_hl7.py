"""HL7 v2 over MLLP by raw sockets: what is scheduled, what is merged, and what is answered to what."""

import socket
import ssl
import time
from contextlib import suppress
from datetime import datetime, timedelta

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from tests.pacs.certificates import Authority
from tests.pacs.conftest import ct_series, free_port, until

from fluoronav.pacs.database import Database
from fluoronav.pacs.fetches import Fetches
from fluoronav.pacs.identities import PATIENT, Identities, Identity, PatientRecord, module_of
from fluoronav.pacs.mllp import Listener
from fluoronav.pacs.outgoing import open_outbox
from fluoronav.pacs.pseudonyms import Pseudonyms
from fluoronav.pacs.reidentify import reidentify_waiting
from fluoronav.pacs.schedule import Schedule
from fluoronav.pacs.status import read_status, told
from fluoronav.pacs.tls import client_context
from fluoronav.site.init import init_site
from fluoronav.site.site_file import Hl7, Tls, load_site

ID, NAME, BORN = "HL-880077", "Hlsieben^Hanna", "19610412"


def msh(kind, sent=None, charset="", mode="P"):
    sent = sent or datetime.now()
    return f"MSH|^~\\&|RIS|HOSP|FLUORONAV|OR|{sent:%Y%m%d%H%M%S}||{kind}|4711|{mode}|2.5|||||DEU|{charset}"


def pid(patient=ID, born=BORN, name="Hlsieben^Hanna", authority="HOSP"):
    return f"PID|1||{patient}^^^{authority}^MR||{name}||{born}|F"


def order(when, control="NW", number="ORD-1", **who):
    obr = f"OBR|1|{number}||CT^CT" + "|" * 32 + when
    return msh("ORM^O01"), pid(**who), f"ORC|{control}|{number}", obr


def in_hours(hours):
    return f"{datetime.now() + timedelta(hours=hours):%Y%m%d%H%M%S}"


class Site:
    """The parts of a node that HL7 needs."""

    def __init__(self, folder, **settings):
        self.site = load_site(init_site(folder))
        self.database = Database(self.site.folder / "node.sqlite")
        self.pseudonyms = Pseudonyms.load(self.site.key)
        self.identities = Identities(self.database, self.pseudonyms)
        self.fetches = Fetches(self.database, self.pseudonyms)
        self.schedule = Schedule(self.site, self.database, self.pseudonyms, self.identities, self.fetches)
        self.port = free_port()
        defaults = {"insecure": True, "callers": ("127.0.0.1",), "issuers": {"HOSP": "SITE"}}
        self.listener = Listener(Hl7(**{**defaults, "port": self.port, **settings}), self.schedule, self.database)
        self.listener.start()

    def call(self):
        return socket.create_connection(("127.0.0.1", self.port), 10)

    def says(self, *segments, encoding="utf-8"):
        """The acknowledgement code and text of a message."""
        with self.call() as s:
            s.sendall(b"\x0b" + "\r".join(segments).encode(encoding) + b"\r\x1c\r")
            return acknowledged(s)

    @property
    def scheduled(self):
        return self.database.rows("SELECT * FROM scheduled ORDER BY starts_ns")

    @property
    def refused(self):
        return " ".join(read_status(self.site)["refused"])

    def known(self, patient_id=ID, born=BORN, name=NAME):
        """A patient with a case here; the pseudonym."""
        pseudonym = self.pseudonyms.patient("SITE", patient_id)
        d = Dataset()
        d.PatientID, d.PatientName, d.PatientBirthDate, d.PatientSex = patient_id, name, born, "F"
        with self.database.transaction() as sql:
            self.identities.add(sql, Identity(pseudonym, "2.25.1", module_of(d, PATIENT), b"", {}))
            row = (pseudonym, pseudonym, f"plan/{pseudonym}")
            sql.execute("INSERT INTO cases VALUES (?, ?, ?, 'arrived', '[]', 1)", row)
        return pseudonym


def acknowledged(connection):
    data = b""
    connection.settimeout(10)
    while not data.endswith(b"\x1c\r"):
        chunk = connection.recv(4096)
        assert chunk, data
        data += chunk
    assert data[:1] == b"\x0b"
    msa = next(s for s in data[1:-2].decode().split("\r") if s.startswith("MSA")).split("|")
    return msa[1], msa[2], msa[3] if len(msa) > 3 else ""


@pytest.fixture
def make(tmp_path):
    sites = []

    def made(**settings):
        sites.append(Site(tmp_path / "site", **settings))
        return sites[-1]

    yield made
    for s in sites:
        s.listener.stop()


@pytest.fixture
def site(make):
    return make()


def test_an_order_is_scheduled_and_its_ct_is_fetched_ahead(site):
    assert site.says(*order(in_hours(20)))[:2] == ("AA", "4711")
    (case,) = site.scheduled
    assert case["state"] == "scheduled" and case["patient"] == site.pseudonyms.patient("SITE", ID)
    assert abs(case["starts_ns"] / 1e9 - time.time() - 20 * 3600) < 5
    row, wanted = site.fetches.due()
    assert (wanted.by, wanted.value, wanted.issuer, row["source"]) == ("patient", ID, "SITE", "hl7")
    text = told(read_status(site.site))
    assert "scheduled P" in text and ID not in text and "Hlsieben" not in text
    for file in site.site.folder.glob("node.sqlite*"):
        assert ID.encode() not in file.read_bytes() and b"Hlsieben" not in file.read_bytes()


def test_an_order_that_is_moved_or_cancelled_is_the_same_case(site):
    site.says(*order(in_hours(2)))
    assert site.says(*order(in_hours(30), "XO"))[0] == "AA"
    assert len(site.scheduled) == 1 and site.scheduled[0]["starts_ns"] / 1e9 - time.time() > 29 * 3600
    assert site.says(*order("", "CA"))[0] == "AA"
    assert site.scheduled[0]["state"] == "cancelled"


def test_an_appointment_and_an_imaging_order_are_scheduled_too(site):
    sch = f"SCH|P-1|F-1|||||||||^^^{in_hours(5)}"
    assert site.says(msh("SIU^S12^SIU_S12"), sch, pid())[0] == "AA"
    assert site.says(msh("OMI^O23"), pid(), "ORC|NW|O-9", f"TQ1|1||||||{in_hours(6)}", "OBR|1|O-9")[0] == "AA"
    assert [r["state"] for r in site.scheduled] == ["scheduled"] * 2
    assert site.says(msh("SIU^S15"), sch, pid())[0] == "AA"
    assert sorted(r["state"] for r in site.scheduled) == ["cancelled", "scheduled"]


@pytest.mark.parametrize("hours", [-1, 1])
def test_a_clock_that_is_an_hour_off_loses_no_case_and_is_told_of(site, hours):
    when = datetime.now() + timedelta(hours=hours)
    segments = (msh("ORM^O01", sent=when), *order(f"{when:%Y%m%d%H%M%S}")[1:])
    assert site.says(*segments)[0] == "AA"
    assert site.fetches.due() is not None
    assert "is a clock wrong?" in site.refused


def test_a_case_far_ahead_or_long_past_is_not_fetched_yet(site):
    site.says(*order(in_hours(24 * 9)))
    site.says(*order(in_hours(-30), number="ORD-2", patient="other"))
    assert site.fetches.due() is None and len(site.scheduled) == 2


def test_a_time_zone_in_a_time_counts(site):
    site.says(*order("20300101120000+0200"))
    assert site.scheduled[0]["starts_ns"] // 10**9 == 1893492000


def test_a_corrected_record_is_what_results_go_back_under(site):
    pseudonym = site.known(name="Old^Name", born="19600101")
    assert site.says(msh("ADT^A08"), "EVN|A08", pid(name="Neu^Name"))[0] == "AA"
    record = site.identities.record(pseudonym)
    assert (record.name, record.birth_date) == ("Neu^Name", BORN)


def test_an_admission_of_nobody_known_keeps_nothing(site):
    assert site.says(msh("ADT^A01"), "EVN|A01", pid())[0] == "AA"
    assert site.says(msh("ADT^A02"), "EVN|A02", pid())[0] == "AA"
    assert not site.scheduled and not site.database.rows("SELECT * FROM identities")


def test_two_patients_with_one_id_are_refused_and_nothing_is_fetched(site):
    site.known(born="19991231")
    for segments in (order(in_hours(3)), (msh("ADT^A04"), "EVN|A04", pid())):
        code, _, text = site.says(*segments)
        assert code == "AE" and "two patients have one ID" in text and ID not in text
    assert site.scheduled[0]["state"] == "refused" and site.fetches.due() is None
    assert "two patients have one ID" in told(read_status(site.site))


def test_two_scheduled_patients_with_one_id_are_refused_but_a_corrected_order_is_not(site):
    assert site.says(*order(in_hours(3)))[0] == "AA"
    assert site.says(*order(in_hours(3), born="19610413"))[0] == "AA"
    assert site.says(*order(in_hours(4), number="ORD-2", born="19000101"))[0] == "AE"


def test_a_merge_takes_cases_and_schedule_to_the_record_that_goes_on(site):
    old = site.known("OLD-1")
    site.says(*order(in_hours(5), patient="OLD-1"))
    assert site.says(msh("ADT^A40^ADT_A39"), "EVN|A40", pid("NEW-2"), "MRG|OLD-1^^^HOSP^MR")[0] == "AA"
    new = site.pseudonyms.patient("SITE", "NEW-2")
    assert site.identities.record(old).patient_id == "NEW-2" and site.identities.survivor(old) == new
    assert [r["patient"] for r in site.database.rows("SELECT patient FROM cases")] == [new]
    assert [r["patient"] for r in site.scheduled] == [new]
    # A result of the case goes back under the new ID.
    result = Dataset()
    result.PatientID, result.StudyInstanceUID, result.SOPInstanceUID = old, "2.25.7", "2.25.8"
    assert site.identities.reassociated(result) and result.PatientID == "NEW-2"
    # Images that carry the old ID do not bring it back.
    site.database.rows("DELETE FROM cases")
    site.known("OLD-1")
    assert site.identities.record(old).patient_id == "NEW-2"
    # A merge of the survivor takes along what was merged before.
    assert site.says(msh("ADT^A40"), "EVN|A40", pid("NEW-3"), "MRG|NEW-2^^^HOSP")[0] == "AA"
    assert site.identities.record(old).patient_id == "NEW-3"
    assert site.identities.survivor(old) == site.pseudonyms.patient("SITE", "NEW-3")


def test_results_that_wait_when_records_are_merged_leave_under_the_id_that_goes_on_with_their_uids(site, tmp_path):
    pseudonym, other = site.known("OLD-1"), site.known("OTHER-9", born="19000101")
    outbox = open_outbox(site.site)
    for k, patient in enumerate((pseudonym, pseudonym, other)):
        d = ct_series(count=1, PatientID=patient, PatientName=patient)[0]
        d.save_as(tmp_path / f"{k}.dcm", enforce_file_format=True)
        outbox.add(tmp_path / f"{k}.dcm", "archive")
    files = sorted((site.site.folder / "outbox").glob("*.dcm"))
    before = {f: dcmread(f) for f in files}
    assert sorted(d.PatientID for d in before.values()) == ["OLD-1", "OLD-1", "OTHER-9"]
    # One of them was sent: the archive has it under the ID of its day.
    sent = next(f for f in files if before[f].PatientID == "OLD-1")
    site.database.rows("UPDATE outbox SET state = 'sent' WHERE file = ?", sent.name)
    merge = (msh("ADT^A40^ADT_A39"), "EVN|A40", pid("NEW-2", name="Müller^Hanna"), "MRG|OLD-1^^^HOSP^MR")
    assert site.says(*merge)[0] == "AA"
    (again,) = [f for f in files if before[f].PatientID == "OLD-1" and f != sent]
    after = dcmread(again)
    assert (after.PatientID, str(after.PatientName)) == ("NEW-2", "Müller^Hanna")
    for keyword in ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID"):
        assert after[keyword] == before[again][keyword]
    assert after.PixelData == before[again].PixelData
    untouched = [f for f in files if f != again]
    assert [dcmread(f) for f in untouched] == [before[f] for f in untouched]
    # What is put in again is the same, and is not put in twice.
    assert not any(
        outbox.add(tmp_path / f"{k}.dcm", "archive") for k in (0, 1, 2) if not _is(before[sent], tmp_path, k)
    )
    # A merge that was cut off before its results: the next start does the rest, once.
    assert reidentify(site) == 0
    before[again].save_as(again)
    assert reidentify(site) == 1 and dcmread(again).PatientID == "NEW-2"


def _is(dataset, folder, k):
    return dcmread(folder / f"{k}.dcm").SOPInstanceUID == dataset.SOPInstanceUID


def reidentify(site):
    return reidentify_waiting(site.site.folder, site.site.issuer, site.database, site.pseudonyms, site.identities)


def test_a_merge_of_two_patients_is_refused(site):
    old = site.known("OLD-1", born="19220202")
    code, _, text = site.says(msh("ADT^A40"), "EVN|A40", pid("NEW-2"), "MRG|OLD-1^^^HOSP")
    assert code == "AE" and "date of birth" in text
    assert site.identities.record(old).patient_id == "OLD-1" and site.identities.survivor(old) == old


@pytest.mark.parametrize(
    ("segments", "code", "said"),
    [
        ((msh("ORM^O01"), "PID|1", "ORC|NW|1"), "AE", "PID-3 is empty"),
        ((msh("ORM^O01"), "ORC|NW|1"), "AE", "PID-3 is empty"),
        ((msh("ORM^O01"), pid(), "ORC|NW"), "AE", "ORC-2 and ORC-3 are empty"),
        (order("tomorrow"), "AE", "OBR-36"),
        ((msh("SIU^S12"), pid(), "SCH|"), "AE", "SCH-1 and SCH-2"),
        ((msh("ADT^A40"), pid()), "AE", "MRG is absent"),
        ((msh("ADT^A40"), pid(), "MRG|"), "AE", "MRG-1 is empty"),
        (order(in_hours(1), patient="12*"), "AA", ""),
        ((msh("ORU^R01"), pid()), "AR", "MSH-9"),
        ((msh("ADT^A01", mode="T"), pid()), "AR", "MSH-11"),
        ((msh("ADT^A01", charset="KLINGON"), pid()), "AR", "MSH-18"),
        (("MSH|^~\\&",), "AR", ""),
        (("GET / HTTP/1.1",), "AR", "does not begin with MSH"),
    ],
)
def test_a_message_is_answered_by_what_is_wrong_with_it(site, segments, code, said):
    answer = site.says(*segments)
    assert answer[0] == code and said in answer[2]
    assert site.says(*order(in_hours(20)))[0] == "AA"


def test_a_name_is_read_in_the_character_set_that_is_named_or_meant(site):
    pseudonym = site.known()
    for charset, encoding in (("UNICODE UTF-8", "utf-8"), ("8859/1", "latin-1"), ("", "latin-1"), ("", "utf-8")):
        head = msh("ADT^A08", charset=charset)
        assert site.says(head, "EVN|A08", pid(name="Müller^Jörg"), encoding=encoding)[0] == "AA"
        assert site.identities.record(pseudonym).name == "Müller^Jörg"
        assert site.says(msh("ADT^A08"), "EVN|A08", pid(name="X^Y"))[0] == "AA"
    assert site.says(msh("ADT^A08", charset="UNICODE UTF-8"), pid(name="Müller"), encoding="latin-1")[0] == "AR"


def test_messages_follow_one_another_over_one_connection_however_they_are_cut(site):
    frame = b"\x0b" + "\r".join(order(in_hours(20))).encode() + b"\r\x1c\r"
    with site.call() as s:
        for at in range(0, len(frame), 50):
            s.sendall(frame[at : at + 50])
            time.sleep(0.002)
        assert acknowledged(s)[0] == "AA"
        s.sendall(frame + frame)
        answers = b""
        while answers.count(b"MSA|AA") < 2:
            answers += s.recv(4096)


@pytest.mark.parametrize(
    ("sent", "counted"),
    [
        (b"\x0bMSH|^~\\&|RIS", "cut off"),
        (b"GET / HTTP/1.1\r\n\r\n", "outside a frame"),
        (b"\x0b" + b"x" * 5000, "frame of more than 2048 bytes"),
    ],
)
def test_a_frame_that_is_cut_off_oversized_or_none_ends_its_connection_alone(make, sent, counted):
    site = make(most_bytes=2048)
    with site.call() as s:
        s.sendall(sent)
        s.shutdown(socket.SHUT_WR)
        s.settimeout(10)
        with suppress(ConnectionResetError):
            assert s.recv(100) == b""
    until(lambda: counted in site.refused, what="the count")
    assert site.says(*order(in_hours(20)))[0] == "AA"


def test_a_frame_that_is_never_finished_ends_and_connections_are_bounded(make):
    site = make(frame_timeout_s=0.3, most_connections=2)
    with site.call() as silent, site.call() as half:
        half.sendall(b"\x0bMSH|")
        until(lambda: "not finished in time" in site.refused, what="the end of the frame")
        with site.call() as third, site.call() as fourth:
            fourth.settimeout(10)
            assert fourth.recv(1) == b""
            assert third.fileno() >= 0
        assert silent.fileno() >= 0
    assert "connection above the limit" in site.refused
    until(lambda: site.listener._server._room._value == 2, what="room")
    assert site.says(*order(in_hours(20)))[0] == "AA"


def test_a_caller_that_is_not_named_is_refused(make):
    site = make(callers=("192.0.2.1",))
    with site.call() as s:
        assert s.recv(1) == b""
    assert "not in `hl7.callers`" in site.refused


def test_what_cannot_be_kept_is_rejected_so_that_it_is_sent_again(site):
    site.database._connection.execute("PRAGMA query_only = 1")
    frame = "\r".join(order(in_hours(1))).encode()
    site.listener.counted = lambda what: None
    assert b"MSA|AR|4711|it cannot be handled now" in site.listener.answer(frame)
    site.database._connection.execute("PRAGMA query_only = 0")


def test_a_record_says_whether_another_can_be_the_same_patient():
    a = PatientRecord("1", "X", "A^B", "19600101", "F")
    assert not a.differs(PatientRecord("1", "X", "Other^Name", "", "F"))
    assert "sex" in a.differs(PatientRecord("1", "X", "A^B", "19600101", "M"))


def test_over_tls_an_order_is_taken_from_who_shows_a_certificate_of_our_authority_alone(make, tmp_path):
    hospital = Authority(tmp_path / "tls")
    site = make(insecure=False, tls=Tls(**hospital.issue("node")), frame_timeout_s=2)
    known = hospital.issue("his")
    message = b"\x0b" + "\r".join(order(in_hours(20))).encode() + b"\r\x1c\r"

    def answered(context):
        """The acknowledgement code; None where the caller is refused."""
        try:
            with context.wrap_socket(site.call(), server_hostname="127.0.0.1") as secure:
                secure.sendall(message)
                return acknowledged(secure)[0]
        except (ssl.SSLError, ConnectionError, AssertionError):
            return None

    stranger = Authority(tmp_path / "other", "stranger").issue("his")
    old = client_context(Tls(**known))
    old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_2
    expired = client_context(Tls(**known))
    files = hospital.issue("old", days=(-5, -1))
    expired.load_cert_chain(files["certificate"], files["key"])
    nameless = ssl.create_default_context(cafile=known["ca"])
    unknown = client_context(Tls(**{**stranger, "ca": known["ca"]}))
    assert [answered(c) for c in (old, expired, nameless, unknown)] == [None] * 4 and not site.scheduled
    assert answered(client_context(Tls(**known))) == "AA" and len(site.scheduled) == 1
    until(lambda: read_status(site.site)["refused"].get("HL7: TLS handshake failed", 0) >= 4, what="refusals")


def test_over_tls_a_plain_or_silent_caller_gets_no_answer_and_holds_nobody_up(make, tmp_path):
    hospital = Authority(tmp_path / "tls")
    site = make(insecure=False, tls=Tls(**hospital.issue("node")), frame_timeout_s=1)
    with site.call() as silent, site.call() as plain:
        plain.sendall(b"\x0b" + "\r".join(order(in_hours(20))).encode() + b"\r\x1c\r")
        context = client_context(Tls(**hospital.issue("his")))
        with context.wrap_socket(site.call(), server_hostname="127.0.0.1") as secure:
            secure.sendall(b"\x0b" + "\r".join(order(in_hours(20))).encode() + b"\r\x1c\r")
            assert acknowledged(secure)[0] == "AA"
        silent.settimeout(10)
        with suppress(ConnectionError):
            assert silent.recv(1) == b""
        plain.settimeout(10)
        with suppress(ConnectionError):
            assert not plain.recv(100).startswith(b"\x0b")
    until(lambda: "HL7: TLS handshake" in site.refused, what="refusals")
    assert len(site.scheduled) == 1
