"""Writes engines/instrument-tiles.onnx: the first network for a tile of the frame, with the same weights.

    pip install -e '.[cpu,train]'
    python engines/training/tiles.py engines

`quantise.py` does it by itself. The network is made of convolutions alone, so that only the sizes of its input and
output change. The same is done with its 8 bit form. The parity example is the upper left part of the first network's.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
from entries_in_8_bits import write_entry  # beside this file

from fluoronav.imaging.inference import InferenceSettings
from fluoronav.imaging.inference.manifest import approved, approved_in_8_bits
from fluoronav.imaging.inference.runner import Runner
from fluoronav.paths import write_json
from fluoronav.stream.detection.network_input import CHANNELS, MAPS
from fluoronav.stream.detection.tiles import TILE_MAP_PX, TILE_PX

WHOLE, TILE = "instruments", "instrument-tiles"


def write_tiles(folder: Path) -> None:
    """Writes the network for a tile in both precisions, its example and its entry in the manifest."""
    path, short = folder / f"{TILE}.onnx", approved_in_8_bits(folder / f"{WHOLE}.onnx")
    assert short is not None
    shapes = {"inputs": {"frame": [1, CHANNELS, TILE_PX, TILE_PX]},
              "outputs": {"maps": [1, len(MAPS), TILE_MAP_PX, TILE_MAP_PX]}}  # fmt: skip
    path.write_bytes(_of_a_tile(approved(folder / f"{WHOLE}.onnx").content))
    manifest = folder / "manifest.json"
    entries = json.loads(manifest.read_text())
    entries[path.name] = {"sha256": hashlib.sha256(path.read_bytes()).hexdigest(), **shapes}
    write_json(entries, manifest)
    _write_example(path)
    file = folder / f"{TILE}.int8.onnx"
    file.write_bytes(_of_a_tile(short.content))
    write_entry(path, replace(short, path=file, content=file.read_bytes(), **shapes))


def _of_a_tile(content: bytes) -> bytes:
    """The same graph with the sizes of a tile."""
    model = onnx.load_from_string(content)
    for value, side in ((model.graph.input[0], TILE_PX), (model.graph.output[0], TILE_MAP_PX)):
        for dim in value.type.tensor_type.shape.dim[2:]:
            dim.dim_value = side
    del model.graph.value_info[:]  # sizes in between, which ONNX Runtime infers anew
    return model.SerializeToString()


def _write_example(path: Path) -> None:
    """The upper left part of the first network's example, and what single precision makes of it."""
    x = np.ascontiguousarray(np.load(path.parent / f"{WHOLE}.parity.npz")["given"][:, :, :TILE_PX, :TILE_PX])
    y = np.zeros((1, len(MAPS), TILE_MAP_PX, TILE_MAP_PX), np.float32)
    Runner(approved(path), InferenceSettings(), {"frame": x.astype(np.float32)}, {"maps": y}).run()
    np.savez_compressed(path.with_suffix(".parity.npz"), given=x, made=y)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="holds manifest.json and the networks")
    write_tiles(parser.parse_args().folder)


if __name__ == "__main__":
    main()
