"""Where files live: what ships with the package, the cache on this computer, and what a user asked to be written."""

from __future__ import annotations

import json
from pathlib import Path

import platformdirs

_PACKAGE = Path(__file__).parent


def cache_folder(kind: str) -> Path:
    """A folder for things that can be computed again, made if need be; ``kind`` is its last part."""
    folder = Path(platformdirs.user_cache_dir("fluoronav")) / kind
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def shipped(name: str) -> Path:
    """A file of ``launch/``, ``calibration/`` or ``engines/``: in the installed package, or in a checkout."""
    installed = _PACKAGE / name
    return installed if installed.exists() else _PACKAGE.parents[1] / name


def embedded_case() -> Path:
    """The case file of the embedded thoracic spine."""
    return _PACKAGE / "case" / "thoracic_spine" / "case.yaml"


def write_json(result: object, path: Path) -> None:
    """Writes figures where the user asked for them, making the folder if need be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n")
