"""The manifest of models: only files with its hashes and shapes are loaded."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fluoronav.paths import shipped

Shapes = dict[str, list[int]]


class ModelError(ValueError):
    """A model that cannot be used; the text names the file, what is wrong and what to do."""


class MissingError(ModelError):
    """A network, or what runs it, is not there; without a path, so that a screen can say it."""


@dataclass(frozen=True)
class Approved:
    """A model file with the approved hash."""

    path: Path
    content: bytes
    sha256: str
    inputs: Shapes
    outputs: Shapes
    bits: int = 32


@dataclass(frozen=True)
class Example:
    """An input of a network, and its output.

    Attributes
    ----------
    given, made : ndarray of float32
        The input, and the output of the network in 32 bits where it was trained.
    off : float
        Relative RMS difference between that and the output in 8 bits, where it was quantised.
    """

    given: NDArray[np.float32]
    made: NDArray[np.float32]
    off: float


def engine(name: str) -> Path:
    """A model that ships with the package."""
    return shipped(f"engines/{name}")


def shipped_models() -> list[Path]:
    """Every model of the manifest that ships with the package."""
    manifest = engine("manifest.json")
    return [manifest.parent / name for name in json.loads(manifest.read_text())]


def in_a_line(error: Exception) -> str:
    """The first line of a foreign error's text; its class name where it has none, as MemoryError."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def approved(path: Path) -> Approved:
    """Reads a model and compares it with ``manifest.json`` in its folder.

    Raises
    ------
    ModelError
        No such file, or another hash than the manifest says.
    """
    entry = _entry(path)
    return _read(path, entry, entry)


def approved_in_8_bits(path: Path) -> Approved | None:
    """The same network in 8 bits (``int8`` of its entry), or None; raises as :func:`approved` does."""
    entry = _entry(path)
    if (short := entry.get("int8")) is None:
        return None
    try:
        return replace(_read(path.parent / str(short["file"]), short, entry), bits=8)
    except (KeyError, TypeError) as error:
        raise ModelError(f"{path.parent / 'manifest.json'}: int8 of {path.name} needs file and sha256") from error


def example_in_8_bits(path: Path) -> Example:
    """The example on which a network in 8 bits is checked before use (``int8.example`` of its entry).

    Raises
    ------
    ModelError
        There is none, or it is not the one that was approved.
    """
    manifest = path.parent / "manifest.json"
    try:
        entry = _entry(path)["int8"]["example"]
        file, wanted, off = path.parent / str(entry["file"]), str(entry["sha256"]), float(entry["off"])
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{manifest}: int8.example of {path.name} needs file, sha256 and off") from error
    content = _hashed(file, wanted)
    try:
        kept = np.load(io.BytesIO(content))
        return Example(kept["given"].astype(np.float32), kept["made"].astype(np.float32), off)
    except (KeyError, ValueError, zipfile.BadZipFile) as error:
        raise ModelError(f"{file}: cannot be read as an example: {in_a_line(error)}") from error


def _entry(path: Path) -> dict[str, Any]:
    manifest = path.parent / "manifest.json"
    if not path.exists():
        raise _no_file(path)
    try:
        entry = json.loads(manifest.read_text())[path.name]
        if missing := {"sha256", "inputs", "outputs"} - set(entry):
            raise KeyError(*missing)
        return entry
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(
            f"{manifest}: says nothing of {path.name}: a model is loaded by its hash or not at all"
        ) from error


def _no_file(path: Path) -> MissingError:
    return MissingError(f"{path.name}: no such file in the folder {path.parent.name}: install fluoronav anew")


def _read(path: Path, hashed: dict[str, Any], shaped: dict[str, Any]) -> Approved:
    wanted = str(hashed["sha256"])
    return Approved(path, _hashed(path, wanted), wanted, shaped["inputs"], shaped["outputs"])


def _hashed(path: Path, wanted: str) -> bytes:
    """The content of a file; raises :class:`ModelError` where its SHA-256 is another."""
    if not path.exists():
        raise _no_file(path)
    content = path.read_bytes()
    sha256 = hashlib.sha256(content).hexdigest()
    if sha256 != wanted:
        raise ModelError(
            f"{path}: its SHA-256 is {sha256[:12]}..., the manifest says {wanted[:12]}...: it is not the file that was "
            "approved; restore it, or approve it by its hash in manifest.json"
        )
    return content
