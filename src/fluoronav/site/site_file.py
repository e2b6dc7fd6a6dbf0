"""The site file, ``SITE.yaml``: this installation's node, peers and case store; validated once, immutable after."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PrivateAttr, ValidationError, model_validator

from fluoronav.site.yaml_file import read_mapping
from fluoronav.validation import checked_endpoint_to_bind, first_error
from fluoronav.wire import DEFAULT_ENDPOINTS, reaches_other_computers

Workflow = Literal["plan", "compare", "archive"]


class SiteError(ValueError):
    """A site file that cannot be used; the text names the file and the key."""


def _title(value: str) -> str:
    """An application entity title, PS3.5 6.2 (AE): 1 to 16 printable ASCII characters without a backslash."""
    if not 1 <= len(value.strip()) <= 16 or "\\" in value or not value.isascii() or not value.isprintable():
        raise ValueError(f"{value!r} is no AE title: 1 to 16 ASCII characters, no backslash")
    return value.strip()


Title = Annotated[str, AfterValidator(_title)]
Endpoint = Annotated[str, AfterValidator(checked_endpoint_to_bind)]
Port = Annotated[int, Field(ge=1, le=65535)]
PeerName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Tls(_Part):
    """PEM files of TLS; relative to the site file."""

    certificate: Path = Field(description="our certificate, with the chain up to the authority")
    key: Path = Field(description="its private key")
    ca: Path = Field(description="authorities that the other side's certificate must come from")


class _Secured(_Part):
    tls: Tls | None = Field(default=None, description="certificates of TLS: `certificate`, `key`, `ca`")
    insecure: bool = Field(default=False, description="whether to speak without TLS")

    @model_validator(mode="after")
    def _one_way(self) -> _Secured:
        if (self.tls is None) != self.insecure:
            raise ValueError("give either `tls` (certificate, key, ca) or `insecure: true`, which speaks in the clear")
        return self


class Node(_Secured):
    """Where this node listens for DICOM, and from whom it takes what."""

    host: str = Field(default="127.0.0.1", description="address to listen on; 0.0.0.0 is all of them")
    port: Port = Field(default=11112, description="TCP port to listen on")
    titles: dict[Title, Workflow] = Field(min_length=1, description="our AE titles and what each starts")
    callers: tuple[Title, ...] = Field(min_length=1, description="AE titles that may call")
    most_associations: int = Field(default=16, ge=1, le=256, description="at a time")
    acse_timeout_s: float = Field(default=5, gt=0, le=60, description="for a connection to become an association")
    network_timeout_s: float = Field(default=30, gt=0, le=600, description="silence after which one is ended")
    least_free_mb: int = Field(default=2048, ge=1, description="free disk below which nothing is taken")


class Series(_Part):
    """When a series counts as complete."""

    settle_s: float = Field(default=0.5, ge=0, le=60, description="from a released association to complete")
    quiet_s: float = Field(default=60.0, gt=0, le=3600, description="without an instance, until it is judged anyway")
    count_from: PeerName | None = Field(default=None, description="peer that says how many instances a series has")
    burned_in: Literal["refuse", "set_aside", "take"] = Field(
        default="refuse", description="what becomes of images into whose pixels text may be burned"
    )


class Dimse(_Secured):
    """A peer that is spoken to by C-STORE and C-FIND."""

    host: str = Field(description="its name or address")
    port: Port = Field(default=104, description="its TCP port")
    called: Title = Field(description="its AE title")
    calling: Title = Field(default="FLUORONAV", description="our AE title, which it must know")


class ArchiveDimse(Dimse):
    """An archive that is spoken to by C-STORE and C-FIND."""

    commitment: bool = Field(default=False, description="whether the archive is asked for storage commitment")
    commitment_wait_s: float = Field(
        default=600, gt=0, le=86400, description="without a report, until commitment is asked for again"
    )


class Web(_Part):
    """A server that is spoken to over HTTPS."""

    url: str = Field(pattern=r"^https?://[^\s]+$", description="root of the service")
    token: Path | None = Field(default=None, description="file that holds the bearer token; read for every request")
    ca: Path | None = Field(default=None, description="authorities of the server; those of this system by default")
    certificate: Path | None = Field(default=None, description="our certificate, where the server wants one")
    key: Path | None = Field(default=None, description="its private key")
    insecure: bool = Field(default=False, description="whether http:// is allowed")

    @model_validator(mode="after")
    def _closed(self) -> Web:
        if self.url.startswith("http://") and not self.insecure:
            raise ValueError("http:// speaks in the clear: use https://, or say `insecure: true`")
        if (self.certificate is None) != (self.key is None):
            raise ValueError("give both `certificate` and `key`, or neither")
        return self


class Dicomweb(Web):
    """A peer that is spoken to by STOW-RS, QIDO-RS and WADO-RS."""


class Peer(_Part):
    """An archive, by DICOMweb, by DIMSE, or by both; then DICOMweb goes first."""

    dicomweb: Dicomweb | None = None
    dimse: ArchiveDimse | None = None
    timeout_s: float = Field(default=10, gt=0, le=600, description="for each answer")

    @model_validator(mode="after")
    def _one(self) -> Peer:
        if self.dicomweb is None and self.dimse is None:
            raise ValueError("give `dicomweb` or `dimse`")
        return self


class Fetch(_Part):
    """What is fetched from an archive."""

    peer: PeerName | None = Field(default=None, description="archive that is fetched from; `results_to` by default")
    studies: int = Field(default=2, ge=1, le=100, description="of a patient: the newest that have CT")
    least_instances: int = Field(default=20, ge=1, description="of a CT series; fewer are localizers")
    ahead_h: float = Field(default=72, gt=0, le=24 * 30, description="before a scheduled case, its CT is fetched")
    behind_h: float = Field(default=12, ge=1, le=72, description="after its start, it is still fetched")


class Worklist(_Part):
    """A Modality Worklist that is asked for scheduled cases."""

    dimse: Dimse
    station: Title | Literal[""] = Field(default="", description="our scheduled station; all of them by default")
    every_s: float = Field(default=300, ge=1, le=86400)
    timeout_s: float = Field(default=10, gt=0, le=600, description="for each answer")


class Fhir(Web):
    """A FHIR R4 server that is asked for scheduled cases."""

    identifiers: dict[str, str] = Field(default={}, description="issuers as images name them, by identifier system")
    every_s: float = Field(default=300, ge=1, le=86400)
    timeout_s: float = Field(default=10, gt=0, le=600, description="for each answer")


class Hl7(_Secured):
    """Where this node listens for HL7 v2 over MLLP."""

    host: str = Field(default="127.0.0.1", description="address to listen on; 0.0.0.0 is all of them")
    port: Port = 2575
    callers: tuple[str, ...] = Field(min_length=1, description="IP addresses that may call")
    issuers: dict[str, str] = Field(default={}, description="issuers as images name them, by assigning authority")
    most_connections: int = Field(default=8, ge=1, le=256)
    most_bytes: int = Field(default=1 << 20, ge=1024, le=1 << 26, description="of one message")
    frame_timeout_s: float = Field(default=10, gt=0, le=600, description="for a message, once it has begun")
    idle_timeout_s: float = Field(default=3600, gt=0, le=86400, description="silence between two")


class Live(_Part):
    """Where a live stream is heard, and what of it becomes results."""

    out: Endpoint = Field(default=DEFAULT_ENDPOINTS["out"], description="`endpoints.out`")
    frames: Endpoint = Field(default=DEFAULT_ENDPOINTS["frames"], description="of the grabber")
    source: str = Field(default="carm0", min_length=1, max_length=64, description="the C-arm's name on the wire")
    marks: Endpoint = Field(
        default=DEFAULT_ENDPOINTS["marks"],
        description="where displays and `pacs mark` are heard",
    )
    run: bool = Field(default=False, description="whether recorded runs are sent, too")

    @model_validator(mode="after")
    def _here(self) -> Live:
        if reaches_other_computers(self.marks):
            raise ValueError(
                f"marks {self.marks!r} is open to other computers, and nobody is asked there who they are: "
                "use tcp://127.0.0.1:PORT, or ipc://PATH"
            )
        return self


class SiteFile(_Part):
    """The content of a site file. Paths are relative to it."""

    name: str = Field(min_length=1, max_length=64, description="name of the site")
    folder: Path = Field(default=Path("node"), description="what the node keeps: its database, what came, what waits")
    cases: Path = Field(default=Path("cases"), description="the case store")
    key: Path = Field(default=Path("site.key"), description="what pseudonyms are made and names are sealed with")
    instruments: Path | None = Field(
        default=None, description="the room's tools and tracker, which exported cases name"
    )
    issuer: str = Field(min_length=1, max_length=64, description="issuer of patient IDs that name none")
    node: Node
    series: Series = Series()
    fetch: Fetch = Fetch()
    worklist: Worklist | None = None
    hl7: Hl7 | None = None
    fhir: Fhir | None = None
    peers: dict[PeerName, Peer] = Field(min_length=1)
    results_to: PeerName = Field(description="peer that results go to")
    live: Live = Live()
    _path: Path = PrivateAttr(default=Path())

    @property
    def path(self) -> Path:
        """The file that the content was read from."""
        return self._path

    @model_validator(mode="after")
    def _known(self) -> SiteFile:
        names = (
            ("results_to", self.results_to),
            ("series.count_from", self.series.count_from),
            ("fetch.peer", self.fetch.peer),
        )
        for key, name in names:
            if name is not None and name not in self.peers:
                raise ValueError(f"{key} names {name!r}, which is not one of the peers ({', '.join(self.peers)})")
        return self


def load_site(path: str | Path) -> SiteFile:
    """Reads and validates a site file, and makes its paths absolute.

    Raises
    ------
    SiteError
    """
    path = Path(path)
    content = read_mapping(path, SiteError, "`fluoronav site init` writes one")
    try:
        site = SiteFile.model_validate(content)
    except ValidationError as error:
        raise SiteError(f"{path}: {first_error(error, unknown_key='unknown key; see docs/pacs.md')}") from error
    site = _absolute(site, path.resolve().parent)
    site._path = path
    return site


def _absolute(part: Any, folder: Path) -> Any:
    """A part of the file with every path taken from the folder."""
    if isinstance(part, Path):
        return folder / part
    if isinstance(part, dict):
        return {k: _absolute(v, folder) for k, v in part.items()}
    if isinstance(part, BaseModel):
        fields = {name: _absolute(getattr(part, name), folder) for name in type(part).model_fields}
        return part.model_copy(update=fields)
    return part
