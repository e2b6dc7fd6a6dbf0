"""The part of `bench planning` that compares a network with the atlas."""

import hashlib

import numpy as np
import pytest

from fluoronav.cli import main
from fluoronav.lab.bench.planning import network
from fluoronav.planning.segmentation.model_card import Card, Intensity, write_card

SPACING = np.array([1.0, 1.0, 1.0])


def bright_network(folder, name="vertebrae"):
    """A network that calls every voxel above 200 HU a vertebra."""
    onnx = pytest.importorskip("onnx", reason="onnx writes the network: pip install 'fluoronav[graph]'")
    pytest.importorskip("onnxruntime", reason="runs networks: pip install 'fluoronav[cpu]'")
    helper, tensor = onnx.helper, onnx.TensorProto.FLOAT
    kernel, bias = np.array([0.0, 10.0]).reshape(2, 1, 1, 1, 1), np.array([0.0, -20.0])
    graph = helper.make_graph(
        [helper.make_node("Conv", ["ct", "w", "b"], ["logits"])], "test",
        [helper.make_tensor_value_info("ct", tensor, [1, 1, "z", "y", "x"])],
        [helper.make_tensor_value_info("logits", tensor, [1, 2, "z", "y", "x"])],
        [onnx.numpy_helper.from_array(a.astype(np.float32), n) for a, n in ((kernel, "w"), (bias, "b"))],
    )  # fmt: skip
    path = folder / "model.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))
    card = Card(
        name="bright", version="1", file=path.name, sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        licence="CC0", origin="made for a test", orientation="LPS", spacing_mm=(1.5, 1.5, 1.5), patch=(48, 48, 48),
        intensity=Intensity(low=-1000, high=1000, mean=0, deviation=100), labels={name: 1},
    )  # fmt: skip
    write_card(card, folder)
    return folder


def test_each_voxel_of_the_network_goes_to_the_nearest_vertebra_of_the_atlas_within_its_reach():
    atlas = {"vertebrae_T12": np.zeros((40, 6, 6), bool), "vertebrae_L1": np.zeros((40, 6, 6), bool)}
    atlas["vertebrae_T12"][20:24], atlas["vertebrae_L1"][10:14] = True, True
    extent = np.ones((40, 6, 6), bool)
    extent[12] = False
    found = network.combined(extent, atlas, SPACING)
    rows = {name: np.flatnonzero(mask.any((1, 2))).tolist() for name, mask in found.items()}
    assert rows["vertebrae_T12"] == list(range(17, 30))  # 6 mm above; half of the gap below
    assert rows["vertebrae_L1"] == [4, 5, 6, 7, 8, 9, 10, 11, 13, 14, 15, 16]


def test_the_network_must_be_better_on_every_level_of_every_patient():
    def result(*pairs):
        rows = [{"name": "vertebrae_L1", "atlas": {"dice": a}, "network": {"dice": b}} for a, b in pairs]
        return {"subjects": {"one": {"structures": rows}}}

    assert network.better_everywhere(result((0.8, 0.9), (0.85, 0.86)))
    assert not network.better_everywhere(result((0.8, 0.9), (0.9, 0.89)))
    assert not network.better_everywhere(result())


def test_a_network_is_measured_beside_the_atlas_on_the_same_patient(shared_data, tmp_path):
    (tmp_path / "planning").mkdir()
    (tmp_path / "planning/l3").symlink_to(shared_data / "planning/l3")
    result = network.measure(tmp_path, lambda _: None, bright_network(tmp_path))
    rows = {row["name"]: row for row in result["subjects"]["l3"]["structures"]}
    assert rows.keys() == {network.ALL, "vertebrae_L3"}
    assert rows["vertebrae_L3"]["atlas"]["dice"] > 0.85 > rows["vertebrae_L3"]["network"]["dice"] > 0.3
    text = network.table(result)
    assert "sample of TPTBox" in text and "is not better than the atlas" in text


def test_a_network_without_vertebrae_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no structure that begins with 'vertebra'"):
        network.measure(tmp_path, lambda _: None, bright_network(tmp_path, name="liver"))


def test_the_part_asks_for_its_model(tmp_path, capsys):
    assert main(["bench", "planning", "--only", "network", "--data", str(tmp_path)]) == 1
    assert "--model FOLDER" in capsys.readouterr().err
