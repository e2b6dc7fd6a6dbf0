"""The launch file, ``launch/*.yaml``: what runs, validated once and immutable after."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

import platformdirs
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    ValidationError,
    field_validator,
    model_validator,
)

from fluoronav.imaging.inference import InferenceSettings
from fluoronav.site.audit import audit_folder
from fluoronav.site.yaml_file import read_mapping
from fluoronav.validation import checked_endpoint_to_bind, first_error
from fluoronav.wire import DEFAULT_ENDPOINTS, reaches_other_computers

StageName = Literal["attenuation", "registration", "detection", "instruments", "witness", "guidance", "view"]
# A source's name is part of topics and of file names: it must not lead out of a folder.
SOURCE_NAME = r"^(?!\.)[A-Za-z0-9_.-]{1,64}\Z"


def _printable(name: str) -> str:
    if not name.isprintable():
        raise ValueError(f"the name {name!r} holds characters that cannot be printed")
    return name


CaseName = Annotated[str, Field(min_length=1, max_length=256), AfterValidator(_printable)]


Endpoint = Annotated[str, AfterValidator(checked_endpoint_to_bind)]


class LaunchError(ValueError):
    """A launch file that cannot be used; the text names the file and the key."""


class Endpoints(BaseModel):
    """ZeroMQ endpoints, ``tcp://host:port`` or ``ipc://path``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    frames: Endpoint = Field(default=DEFAULT_ENDPOINTS["frames"])
    out: Endpoint = Field(default=DEFAULT_ENDPOINTS["out"])
    requests: Endpoint = Field(default=DEFAULT_ENDPOINTS["requests"])
    tools: Endpoint | None = Field(default=DEFAULT_ENDPOINTS["tools"])
    marks: Endpoint = Field(default=DEFAULT_ENDPOINTS["marks"], description="of the display alone")


class LaunchFile(BaseModel):
    """The content of a launch file. Paths are relative to it."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    case: str = Field(description="`embedded`, a case.yaml or its folder")
    camera: str = Field(description="camera file (YAML)")
    source: str = Field(default="carm0", description="the grabber's source name: letters, digits, _ - and .")
    mode: Literal["live", "shadow"] = "live"
    deadline_ms: float = Field(default=33.3, gt=1, le=10000, description="exposure to overlay")
    stale_ms: float = Field(default=150, ge=20, le=10000, description="silence after which frames are called stale")
    max_future_ms: float = Field(default=100, ge=0, description="how far a frame's clock may run ahead of ours")
    queue_frames: int = Field(default=8, ge=1, le=64, description="frames that may wait before the oldest is lost")
    stages: tuple[StageName, ...] = (
        "attenuation", "registration", "detection", "instruments", "witness", "guidance", "view"
    )  # fmt: skip
    cases: dict[CaseName, str] = Field(
        default={}, max_length=64, description="names of cases that may be loaded instead on request, and their files"
    )
    audit: str | None = Field(
        default=None, description="folder for the trail of requests; the user's state folder by default"
    )
    recordings: str | None = Field(default=None, description="folder for recordings; the user's data folder by default")
    allow_unauthenticated: bool = Field(
        default=False, description="whether `endpoints.requests` may be open to other computers, whoever asks there"
    )
    inference: InferenceSettings = InferenceSettings()
    endpoints: Endpoints = Endpoints()
    _path: Path | None = PrivateAttr(default=None)

    @property
    def path(self) -> Path | None:
        """The file that the content was read from."""
        return self._path

    @property
    def unauthenticated(self) -> bool:
        """Whether other computers may send requests."""
        return reaches_other_computers(self.endpoints.requests)

    @property
    def audit_folder(self) -> Path:
        """Folder of the audit trail."""
        return Path(self.audit) if self.audit else audit_folder()

    @property
    def recordings_folder(self) -> Path:
        """Folder of recordings."""
        if self.recordings:
            return Path(self.recordings)
        return Path(platformdirs.user_data_dir("fluoronav")) / "recordings"

    @field_validator("source")
    @classmethod
    def _safe(cls, source: str) -> str:
        if not re.match(SOURCE_NAME, source):
            raise ValueError(
                f"is {source[:80]!r}; a source is named by up to 64 letters, digits, _, - and ., no dot in front"
            )
        return source

    @model_validator(mode="after")
    def _closed(self) -> LaunchFile:
        if self.unauthenticated and not self.allow_unauthenticated:
            raise ValueError(
                f"endpoints.requests {self.endpoints.requests} can be reached from other computers, and requests carry "
                "no key: bind it to 127.0.0.1 or an ipc:// path, or say `allow_unauthenticated: true`"
            )
        return self

    @field_validator("stages")
    @classmethod
    def _named_once(cls, stages: tuple[str, ...]) -> tuple[str, ...]:
        for i, name in enumerate(stages):
            if name in stages[:i]:
                raise ValueError(f"{name!r} is there twice")
        return stages


def load_launch(path: str | Path, **instead: Any) -> LaunchFile:
    """Reads and validates a launch file, and makes its paths absolute.

    Parameters
    ----------
    path : str or Path
    **instead
        Values that replace those of the file.

    Raises
    ------
    LaunchError
    """
    path = Path(path)
    content = read_mapping(path, LaunchError)
    try:
        launch = LaunchFile.model_validate(content | instead)
    except ValidationError as error:
        keys = ", ".join(LaunchFile.model_fields)
        raise LaunchError(f"{path}: {first_error(error, unknown_key=f'unknown key; the keys are {keys}')}") from error
    folder = path.resolve().parent

    def absolute(name: str) -> str:
        return name if name == "embedded" else str(folder / name)

    launch = launch.model_copy(
        update={
            "case": absolute(launch.case),
            "cases": {name: absolute(case) for name, case in launch.cases.items()},
            "camera": str(folder / launch.camera),
            "audit": str(folder / launch.audit) if launch.audit else None,
            "recordings": str(folder / launch.recordings) if launch.recordings else None,
        }
    )
    launch._path = path.resolve()
    return launch
