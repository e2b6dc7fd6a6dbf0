"""Who and what made an object: software, networks, time, and the person who accepted it."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType
from typing import Any

import pydicom
from numpy.typing import NDArray
from pydicom.sr.coding import Code

from fluoronav import __version__

MANUFACTURER = "fluoronav"
MODEL = "fluoronav"
# Names what is hashed into UIDs; a change of it would store every object twice.
_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_DNS, "objects.dicom.fluoronav")
_LO = 64  # most characters of a value with VR LO (PS3.5 6.2)
_PROCESSING = Code("109102", "DCM", "Processing Equipment")
DRAFT = "DRAFT"


@dataclass(frozen=True)
class Producer:
    """The software that makes objects.

    Attributes
    ----------
    software : tuple of str
        Versions, most important first.
    serial : str
        Of the device: the installation's name.
    models : mapping of str to str
        SHA-256, hexadecimal, of every network that had a part in the content, by its name.
    """

    manufacturer: str = MANUFACTURER
    model: str = MODEL
    software: tuple[str, ...] = (__version__,)
    serial: str = "none"
    models: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True)
class Approval:
    """A person's acceptance.

    Attributes
    ----------
    person : str
        Name, as DICOM writes it: FAMILY^GIVEN.
    organization : str
    at : datetime
    """

    person: str
    organization: str
    at: datetime


@dataclass(frozen=True)
class Provenance:
    """Who and what made an object, and when.

    Attributes
    ----------
    producer : Producer
    made : datetime
        Not part of the UID: the same content made again has the same UID.
    approval : Approval, optional
        Without it the object is a draft, and says so.
    """

    producer: Producer
    made: datetime
    approval: Approval | None = None

    @property
    def is_draft(self) -> bool:
        return self.approval is None

    def labelled(self, text: str, most: int = _LO) -> str:
        """A description, begun with "DRAFT" unless a person has accepted the object; at most `most` characters."""
        return (f"{DRAFT} {text}" if self.is_draft else text)[:most].strip()

    def content_label(self, text: str) -> str:
        """ContentLabel (0070,0080): "DRAFT", or `text`, a code string."""
        return DRAFT if self.is_draft else text

    def key(self) -> str:
        """What of it changes an object's UID."""
        p = self.producer
        approval = [self.approval.person, self.approval.organization] if self.approval else None
        return json.dumps([p.manufacturer, p.model, list(p.software), p.serial, sorted(p.models.items()), approval])

    def equipment(self) -> list[pydicom.Dataset]:
        """Items of ContributingEquipmentSequence (0018,a001): the software, and one for every network."""
        p = self.producer
        text = "made by software; not accepted by a person"
        if self.approval is not None:
            text = f"accepted by {self.approval.person} on {self.approval.at:%Y-%m-%d %H:%M}"
        items = [self._item(p.model, list(p.software), text)]
        items += [
            self._item(name[:_LO], [digest[:_LO]], "network; SHA-256") for name, digest in sorted(p.models.items())
        ]
        return items

    def _item(self, model: str, versions: list[str], text: str) -> pydicom.Dataset:
        item = pydicom.Dataset()
        item.PurposeOfReferenceCodeSequence = [coded(_PROCESSING)]
        item.Manufacturer = self.producer.manufacturer
        item.ManufacturerModelName = model
        item.DeviceSerialNumber = self.producer.serial
        item.SoftwareVersions = versions
        item.ContributionDescription = text
        item.ContributionDateTime = f"{self.made:%Y%m%d%H%M%S}"
        return item


def coded(code: Code) -> pydicom.Dataset:
    """An item of a code sequence (PS3.3 8.8)."""
    item = pydicom.Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = code.value, code.scheme_designator, code.meaning
    return item


def uid_of(*parts: str) -> str:
    """A UID that follows from what it names: 2.25 and a name-based UUID as a number (PS3.5 B.2)."""
    key = hashlib.sha256("\0".join(parts).encode()).hexdigest()
    return f"2.25.{uuid.uuid5(_NAMESPACE, key).int}"


def digest_of(*parts: bytes | str | NDArray[Any]) -> str:
    """SHA-256 of an object's content, hexadecimal; each part is counted with its length."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part if isinstance(part, bytes) else part.tobytes()
        digest.update(f"{len(data)}:".encode())
        digest.update(data)
    return digest.hexdigest()
