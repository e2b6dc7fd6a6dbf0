"""Writes what `manifest.json` says of networks in 8 bits: file, hash, and how far the answer to the example is off.

    python engines/training/entries_in_8_bits.py engines

`quantise.py` does it by itself; after an example alone has changed, this does, for the files as they are.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from pathlib import Path

import numpy as np

from fluoronav.imaging.inference import InferenceSettings
from fluoronav.imaging.inference.eight_bits import off_by
from fluoronav.imaging.inference.manifest import Approved, approved_in_8_bits
from fluoronav.imaging.inference.runner import Runner
from fluoronav.paths import write_json


def write_entry(path: Path, short: Approved) -> None:
    """Writes the ``int8`` entry of a network.

    Parameters
    ----------
    path : Path
        The whole network; its parity example lies beside it.
    short : Approved
        The same in 8 bits.
    """
    example = path.with_suffix(".parity.npz")
    kept = np.load(example)
    x, y = kept["given"].astype(np.float32), np.zeros_like(kept["made"])
    ((given, _),), ((made, _),) = short.inputs.items(), short.outputs.items()
    Runner(short, InferenceSettings(), {given: x}, {made: y}).run()
    off = round(off_by(y, kept["made"]), 5)
    manifest = path.parent / "manifest.json"
    entries = json.loads(manifest.read_text())
    entries[path.name]["int8"] = {
        "file": short.path.name,
        "sha256": hashlib.sha256(short.content).hexdigest(),
        "example": {"file": example.name, "sha256": hashlib.sha256(example.read_bytes()).hexdigest(), "off": off},
    }
    write_json(entries, manifest)
    print(f"{path.stem}: the answer to its example is {off:.2%} off in 8 bits")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="holds manifest.json and the networks")
    folder = parser.parse_args().folder
    for name, entry in json.loads((folder / "manifest.json").read_text()).items():
        if "int8" in entry and (short := approved_in_8_bits(folder / name)) is not None:
            write_entry(folder / name, short)


if __name__ == "__main__":
    main()
