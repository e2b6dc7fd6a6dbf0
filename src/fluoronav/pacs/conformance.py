"""The tables of the DICOM conformance statement, from the code: `python -m fluoronav.pacs.conformance PAGE`."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydicom.uid import (
    UID,
    Comprehensive3DSRStorage,
    EncapsulatedPDFStorage,
    EncapsulatedSTLStorage,
    ExplicitVRLittleEndian,
    GrayscaleSoftcopyPresentationStateStorage,
    JPEGLSLossless,
    KeyObjectSelectionDocumentStorage,
    SecondaryCaptureImageStorage,
    SegmentationStorage,
    SpatialRegistrationStorage,
    XRayAngiographicImageStorage,
)
from pynetdicom import PYNETDICOM_IMPLEMENTATION_UID, PYNETDICOM_IMPLEMENTATION_VERSION
from pynetdicom.sop_class import _STORAGE_CLASSES, LabelMapSegmentationStorage  # type: ignore[attr-defined]

from fluoronav.pacs.contexts import COMMITMENT, ECHO, FIND, MOVE, PDU_BYTES, STORAGE_CLASSES, WORKLIST, accepted
from fluoronav.pacs.outbox import LIMITS
from fluoronav.site.site_file import ArchiveDimse, Dicomweb, Node, Peer, Series, SiteFile

_MARKED = re.compile(r"(<!-- offered: ([\w-]+) -->\n).*?(<!-- end -->)", re.S)
# Names of classes that are younger than pydicom's registry.
_YOUNG = {
    uid: " ".join(re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+D?", word)) for word, uid in _STORAGE_CLASSES.items()
}
# What `fluoronav dicom` writes, by SOP class, with the transfer syntax.
RESULTS = {
    SegmentationStorage: ExplicitVRLittleEndian,
    LabelMapSegmentationStorage: JPEGLSLossless,
    Comprehensive3DSRStorage: ExplicitVRLittleEndian,
    GrayscaleSoftcopyPresentationStateStorage: ExplicitVRLittleEndian,
    SecondaryCaptureImageStorage: ExplicitVRLittleEndian,
    EncapsulatedSTLStorage: ExplicitVRLittleEndian,
    EncapsulatedPDFStorage: ExplicitVRLittleEndian,
    XRayAngiographicImageStorage: ExplicitVRLittleEndian,
    SpatialRegistrationStorage: ExplicitVRLittleEndian,
    KeyObjectSelectionDocumentStorage: ExplicitVRLittleEndian,
}
_PARTS: dict[str, type[BaseModel]] = {
    "": SiteFile, "node.": Node, "series.": Series, "peers.*.": Peer, "peers.*.dimse.": ArchiveDimse,
    "peers.*.dicomweb.": Dicomweb,
}  # fmt: skip
# Keys that hold a part, which has rows of its own.
_HOLDERS = {"node", "series", "peers", "peers.*.dimse", "peers.*.dicomweb"}

Rows = Iterator[Sequence[object]]


def _services() -> Rows:
    yield "SOP class", "as SCU", "as SCP"
    yield UID(ECHO).name, "no", "yes"
    yield f"Storage, {len(STORAGE_CLASSES)} SOP classes", "yes, what is in the outbox", "yes"
    yield UID(FIND).name, "yes", "yes"
    yield UID(MOVE).name, "yes, to the node's own title, where the archive has no DICOMweb", "no"
    yield UID(COMMITMENT).name, "yes, where the archive's `dimse` has `commitment: true`", "no"
    yield UID(WORKLIST).name, "yes, where the site file has `worklist`", "no"


def _storage() -> Rows:
    yield "SOP class", "UID"
    yield from ((_name(uid), uid) for uid in STORAGE_CLASSES)


def _name(uid: str) -> str:
    name = UID(uid).name
    return _YOUNG[uid] if name == uid else name


def _syntaxes() -> Rows:
    contexts = accepted()
    yield "transfer syntax", "UID", "Storage", "Verification, C-FIND"
    for uid in contexts[STORAGE_CLASSES[0]]:
        yield UID(uid).name, uid, "yes", "yes" if uid in contexts[FIND] else "no"


def _results() -> Rows:
    yield "SOP class", "UID", "transfer syntax"
    yield from ((_name(sop), sop, syntax.name) for sop, syntax in RESULTS.items())


def _association() -> Rows:
    node = Node.model_fields
    yield "property", "value"
    yield "application context name", "1.2.840.10008.3.1.1.1"
    yield "most associations at a time, as acceptor", f"{node['most_associations'].default}, `node.most_associations`"
    yield "most associations at a time, as requestor", "2: one that sends, one that counts"
    yield "asynchronous operations", "none: one outstanding transaction"
    yield "maximum length of a PDU received, bytes", PDU_BYTES
    yield "implementation class UID", PYNETDICOM_IMPLEMENTATION_UID
    yield "implementation version name", PYNETDICOM_IMPLEMENTATION_VERSION
    yield "from connection to association, s", f"{node['acse_timeout_s'].default:g}, `node.acse_timeout_s`"
    yield "silence that ends an association, s", f"{node['network_timeout_s'].default:g}, `node.network_timeout_s`"
    yield "wait for an archive's answer, s", f"{Peer.model_fields['timeout_s'].default:g}, `peers.*.timeout_s`"
    yield "instances in one association or request, as requestor", LIMITS.batch


def _configuration() -> Rows:
    yield "key", "default", "meaning"
    for prefix, part in _PARTS.items():
        for name, field in part.model_fields.items():
            if f"{prefix}{name}" in _HOLDERS:
                continue
            default = "-" if field.is_required() or field.default is None else _told(field.default)
            yield f"`{prefix}{name}`", default, field.description


def _told(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else str(value)


TABLES: dict[str, Callable[[], Rows]] = {
    "services": _services, "storage": _storage, "syntaxes": _syntaxes, "results": _results,
    "association": _association, "configuration": _configuration,
}  # fmt: skip


def rendered(page: str) -> str:
    """The statement with its marked tables as the code has them now; a KeyError where a table does not exist."""
    return _MARKED.sub(lambda m: m[1] + _markdown(TABLES[m[2]]()) + m[3], page)


def _markdown(rows: Iterable[Sequence[object]]) -> str:
    header, *body = ([str(cell) for cell in row] for row in rows)
    return "".join(f"| {' | '.join(line)} |\n" for line in (header, ["---"] * len(header), *body))


if __name__ == "__main__":
    path = Path(sys.argv[1])
    path.write_text(rendered(path.read_text(encoding="utf-8")), encoding="utf-8")
