"""HL7 v2 messages as they bear on scheduled cases: ADT (chapter 3), ORM and OMI (chapter 4), SIU (chapter 10)."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone

import hl7

from fluoronav.pacs.identities import PatientRecord

# Character sets of MSH-18: HL7 table 0211.
_CHARSETS = {
    "": "utf-8", "ASCII": "ascii", "UNICODE UTF-8": "utf-8", "8859/1": "latin-1", "8859/2": "iso8859-2",
    "8859/5": "iso8859-5", "8859/7": "iso8859-7", "8859/9": "iso8859-9", "8859/15": "iso8859-15",
}  # fmt: skip
_MSH_18 = 17  # separators before it
_TIME = re.compile(r"^(\d{8})(\d{2})?(\d{2})?(\d{2})?(?:\.\d+)?([+-]\d{4})?$")
_OFF = ("CA", "DC", "OC", "CR", "OD", "DR")  # order control: cancelled or discontinued, table 0119
_DATE_CHARS = 8


class Hl7Error(ValueError):
    """A message with wrong content (answered with AE); the text names the field, never its value."""


class Hl7Rejected(ValueError):
    """No message, or of a kind that is not taken (answered with AR)."""


@dataclass(frozen=True)
class Admission:
    """A patient's record: registered (A01, A04), or corrected (A08)."""

    patient: PatientRecord
    corrected: bool


@dataclass(frozen=True)
class Merges:
    """Records that are given up, each with the one that goes on (A40)."""

    pairs: tuple[tuple[PatientRecord, PatientRecord], ...]


@dataclass(frozen=True)
class Order:
    """A case that is scheduled, moved, or off; `starts` is None where the message does not say."""

    number: str
    patient: PatientRecord
    starts: datetime | None
    off: bool


@dataclass(frozen=True)
class Other:
    """A message that is understood and means nothing here."""


Meaning = Admission | Merges | Order | Other


def parsed(frame: bytes) -> hl7.Message:
    """The message of a frame.

    Raises
    ------
    Hl7Rejected
    """
    if not frame.startswith(b"MSH") or len(frame) < _DATE_CHARS:
        raise Hl7Rejected("it does not begin with MSH")
    head = re.split(rb"[\r\n]", frame, maxsplit=1)[0].split(frame[3:4])
    named = head[_MSH_18] if len(head) > _MSH_18 else b""
    declared = re.split(rb"[\^~]", named)[0].decode("ascii", "replace").strip()
    encoding = _CHARSETS.get(declared)
    if encoding is None:
        raise Hl7Rejected("MSH-18 names a character set that is not known here")
    try:
        text = frame.decode(encoding)
    except UnicodeDecodeError as error:
        if declared:
            raise Hl7Rejected("its texts are not in the character set that MSH-18 names") from error
        text = frame.decode("latin-1")
    try:
        message = hl7.parse(text.replace("\r\n", "\r").replace("\n", "\r").strip("\r") + "\r")
        message.segment("MSH")
    except Exception as error:  # the library raises its own, KeyError and IndexError
        raise Hl7Rejected("it cannot be parsed") from error
    return message


def field(message: hl7.Message, segment: str, number: int, component: int = 1, *, sub: int = 1, row: int = 1) -> str:
    """A component of the first repetition of a field, without escapes; empty where absent."""
    try:
        return str(message.unescape(str(message.extract_field(segment, row, number, 1, component, sub)))).strip()
    except (KeyError, IndexError):
        return ""


def meaning(message: hl7.Message, issuers: dict[str, str]) -> Meaning:
    """What a message says.

    Parameters
    ----------
    message : hl7.Message
    issuers : dict of str to str
        Issuers as images name them, by assigning authority (CX.4).

    Raises
    ------
    Hl7Error, Hl7Rejected
    """
    kind, event = field(message, "MSH", 9), field(message, "MSH", 9, 2)
    if field(message, "MSH", 11).upper() not in ("P", ""):
        raise Hl7Rejected("MSH-11: only messages of production are taken (P)")
    reader = _KINDS.get(kind)
    if reader is None:
        raise Hl7Rejected("MSH-9: messages of this type are not taken; ADT, ORM, OMI and SIU are")
    return reader(message, event, issuers)


def _admission(message: hl7.Message, event: str, issuers: dict[str, str]) -> Meaning:
    if event == "A40":
        try:
            number = len(message.segments("MRG"))
        except KeyError as error:
            raise Hl7Error("MRG is absent: which record is given up is not said") from error
        pairs = []
        for row in range(1, number + 1):
            new = _patient(message, issuers, row)
            old = PatientRecord(field(message, "MRG", 1, row=row), _issuer(message, "MRG", 1, issuers, row))
            if not old.patient_id:
                raise Hl7Error("MRG-1 is empty: which record is given up is not said")
            pairs.append((old, new))
        return Merges(tuple(pairs))
    if event in ("A01", "A04", "A08"):
        return Admission(_patient(message, issuers), event == "A08")
    return Other()


def _order(message: hl7.Message, event: str, issuers: dict[str, str]) -> Meaning:
    numbers = (field(message, segment, number) for number in (2, 3) for segment in ("ORC", "OBR"))
    number = next((n for n in numbers if n), "")
    if not number:
        raise Hl7Error("ORC-2 and ORC-3 are empty: the order has no number")
    when = field(message, "OBR", 36) or field(message, "TQ1", 7) or field(message, "ORC", 7, 4)
    starts = _time(when, "OBR-36, TQ1-7 or ORC-7.4")
    return Order(number, _patient(message, issuers), starts, field(message, "ORC", 1) in _OFF)


def _appointment(message: hl7.Message, event: str, issuers: dict[str, str]) -> Meaning:
    if event not in ("S12", "S13", "S14", "S15", "S17", "S26"):
        return Other()
    number = field(message, "SCH", 2) or field(message, "SCH", 1)
    if not number:
        raise Hl7Error("SCH-1 and SCH-2 are empty: the appointment has no number")
    when = field(message, "SCH", 11, 4) or field(message, "AIS", 4) or field(message, "TQ1", 7)
    starts = _time(when, "SCH-11.4, AIS-4 or TQ1-7")
    return Order(number, _patient(message, issuers), starts, event in ("S15", "S17", "S26"))


_KINDS: dict[str, Callable[[hl7.Message, str, dict[str, str]], Meaning]] = {
    "ADT": _admission, "ORM": _order, "OMI": _order, "SIU": _appointment,
}  # fmt: skip


def _patient(message: hl7.Message, issuers: dict[str, str], row: int = 1) -> PatientRecord:
    patient_id = field(message, "PID", 3, row=row)
    if not patient_id:
        raise Hl7Error("PID-3 is empty: whose it is cannot be told")
    # XPN is family, given, further, suffix, prefix; PN of DICOM has the prefix before the suffix (PS3.5 6.2.1.1).
    parts = [field(message, "PID", 5, n, row=row) for n in (1, 2, 3, 5, 4)]
    birth = field(message, "PID", 7, row=row)[:_DATE_CHARS]
    return PatientRecord(
        patient_id,
        _issuer(message, "PID", 3, issuers, row),
        "^".join(parts).rstrip("^"),
        birth if len(birth) == _DATE_CHARS and birth.isdigit() else "",
        sex if (sex := field(message, "PID", 8, row=row)) in ("M", "F", "O") else "",
    )


def _issuer(message: hl7.Message, segment: str, number: int, issuers: dict[str, str], row: int) -> str:
    authority = field(message, segment, number, 4, row=row)
    return issuers.get(authority, authority)


def sent_at(message: hl7.Message) -> datetime | None:
    """When the sender says that it sent the message (MSH-7)."""
    try:
        return _time(field(message, "MSH", 7), "MSH-7")
    except Hl7Error:
        return None


def _time(text: str, where: str) -> datetime | None:
    """A time (TS); in this computer's time zone where it names none."""
    if not text:
        return None
    match = _TIME.match(text)
    try:
        if match is None:
            raise ValueError
        date, hours, minutes, seconds, offset = match.groups()
        naive = datetime.strptime(f"{date}{hours or '00'}{minutes or '00'}{seconds or '00'}", "%Y%m%d%H%M%S")
        if offset is None:
            return naive.astimezone()
        east = timedelta(hours=int(offset[:3]), minutes=int(offset[0] + offset[3:]))
        return naive.replace(tzinfo=timezone(east))
    except ValueError as error:
        raise Hl7Error(f"{where} is no date and time") from error
