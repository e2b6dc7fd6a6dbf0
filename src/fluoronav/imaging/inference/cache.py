"""The cache of engines that were compiled ahead of time, by everything that they depend on."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from fluoronav.imaging.inference.manifest import Approved, ModelError
from fluoronav.imaging.inference.settings import Precision
from fluoronav.paths import cache_folder

# GPUs for which TensorRT-RTX builds without having one: compute capability 7.5 (Turing) to 12.0 (Blackwell).
TARGETS = ("sm75", "sm80", "sm86", "sm89", "sm120")
_NAME = re.compile(
    r"^(?P<stem>.+)-(?P<sha>[0-9a-f]{12})-(?P<kind>tensorrt(-rtx)?)-(?P<version>[0-9.]+)-(?P<target>sm\d+)(?P<half>-fp16)?$"
)


@dataclass(frozen=True)
class EngineKey:
    """Everything that a compiled engine depends on."""

    stem: str
    model_sha256: str
    kind: str
    version: str
    target: str
    precision: Precision = "fp32"

    @property
    def path(self) -> Path:
        """Its file in the cache."""
        half = "-fp16" if self.precision == "fp16" else ""
        name = f"{self.stem}-{self.model_sha256[:12]}-{self.kind}-{self.version}-{self.target}{half}.engine"
        return cache_folder("engines") / name


def keep(key: EngineKey, content: bytes) -> Path:
    """Writes an engine and its hash, each under another name first, and renamed when complete; returns the path."""
    path = key.path
    for target, data in ((path, content), (_digest_file(path), hashlib.sha256(content).hexdigest().encode())):
        temporary = target.with_suffix(target.suffix + ".tmp")
        temporary.write_bytes(data)
        temporary.replace(target)
    return path


def built_engine(model: Approved, kind: str, version: str, target: str, precision: Precision = "fp32") -> bytes:
    """The engine of a model for one GPU and version. Nothing is compiled here.

    Raises
    ------
    ModelError
        Names the model, what is missing or stale, and the command that builds it.
    """
    key = EngineKey(model.path.stem, model.sha256, kind, version, target, precision)
    in_half = " --precision fp16" if precision == "fp16" else ""
    command = f"run `fluoronav engines build --engine {kind} --target {target}{in_half}`"
    if not key.path.exists():
        raise ModelError(f"{model.path.name}: {_why_not(key)}; {command}")
    content = key.path.read_bytes()
    digest = _digest_file(key.path)
    if not digest.exists() or digest.read_text().strip() != hashlib.sha256(content).hexdigest():
        raise ModelError(f"{key.path}: is damaged (its hash is not the one it was built with); {command}")
    return content


def _why_not(wanted: EngineKey) -> str:
    """Why an engine is missing: what the cache holds instead."""
    others = []
    for path in cache_folder("engines").glob(f"{wanted.stem}-*.engine"):
        found = _NAME.match(path.stem)
        if found and found["kind"] == wanted.kind and bool(found["half"]) == (wanted.precision == "fp16"):
            others.append(found)
    for which, have, want in (
        ("model", [o["sha"] for o in others if o["target"] == wanted.target], wanted.model_sha256[:12]),
        ("version", [o["version"] for o in others if o["target"] == wanted.target], wanted.version),
        ("target", [o["target"] for o in others], wanted.target),
    ):
        if have and want not in have:
            return f"its {wanted.kind} engine is stale: built for {which} {', '.join(sorted(set(have)))}, not {want}"
    return f"has no {wanted.kind} engine for {wanted.target} in {wanted.precision}"


def _digest_file(path: Path) -> Path:
    return path.with_suffix(".sha256")
