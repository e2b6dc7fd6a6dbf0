"""A network that a hospital brings: nnU-Net's preprocessing, windows, orientation, and its model card."""

import hashlib
import itertools
import json

import numpy as np
import pytest
import SimpleITK as sitk

from fluoronav.case.volume import Volume
from fluoronav.cli import main
from fluoronav.planning.segmentation.engine import SegmentationError
from fluoronav.planning.segmentation.model_card import Card, Intensity, card_from_nnunet, read_card, write_card
from fluoronav.planning.segmentation.network import NetworkEngine
from fluoronav.planning.segmentation.resampling import resampled
from fluoronav.planning.segmentation.sliding_window import probabilities, starts, weights

onnx = pytest.importorskip("onnx", reason="onnx writes the networks of these tests: pip install 'fluoronav[graph]'")
pytest.importorskip("onnxruntime", reason="runs networks: pip install 'fluoronav[cpu]'")

PATCH = (12, 16, 16)
MEAN, DEVIATION, EDGE_HU = 100.0, 50.0, 150.0


def write_network(path, kernel, bias):
    """Writes a network of one convolution, weights (channels, 1, z, y, x)."""
    helper, tensor = onnx.helper, onnx.TensorProto.FLOAT
    pads = [n // 2 for n in kernel.shape[2:]] * 2
    graph = helper.make_graph(
        [helper.make_node("Conv", ["ct", "w", "b"], ["logits"], pads=pads)],
        "test",
        [helper.make_tensor_value_info("ct", tensor, [1, 1, "z", "y", "x"])],
        [helper.make_tensor_value_info("logits", tensor, [1, len(kernel), "z", "y", "x"])],
        [onnx.numpy_helper.from_array(a.astype(np.float32), n) for a, n in ((kernel, "w"), (bias, "b"))],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, str(path))


def model_folder(folder, labels=("vertebrae_T8",), spacing_mm=(2.0, 2.0, 2.0), orientation="RAS", **keys):
    """A model that calls bright what is above EDGE_HU, with its card."""
    folder.mkdir(exist_ok=True)
    kernel = np.zeros((len(labels) + 1, 1, 1, 1, 1))
    kernel[1] = 10.0
    bias = np.full(len(labels) + 1, -1e3)
    bias[:2] = 0.0, -10.0 * (EDGE_HU - MEAN) / DEVIATION
    write_network(folder / "model.onnx", kernel, bias)
    card = Card(
        name="bright", version="1", file="model.onnx",
        sha256=hashlib.sha256((folder / "model.onnx").read_bytes()).hexdigest(),
        licence="CC0", origin="made for a test", orientation=orientation, spacing_mm=spacing_mm, patch=PATCH,
        intensity=Intensity(low=-1000, high=1000, mean=MEAN, deviation=DEVIATION),
        labels={name: k + 1 for k, name in enumerate(labels)}, **keys,
    )  # fmt: skip
    write_card(card, folder)
    return folder


def ct_image(shape=(30, 40, 36), spacing=(2.0, 2.0, 2.0), seed=0):
    """Smooth random HU, about half of it above EDGE_HU."""
    values = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    image = sitk.DiscreteGaussian(sitk.GetImageFromArray(values), 4.0)
    image = sitk.Cast(sitk.Normalize(image) * 100 + EDGE_HU, sitk.sitkInt16)
    image.SetSpacing(spacing)
    image.SetOrigin((-30.0, 12.0, 400.0))
    return image


def segmented(image, folder, tmp_path, **keys):
    return NetworkEngine(folder, **keys).segment(Volume(image, tmp_path / "ct.nii.gz", units="hu"), lambda *_: None)


def test_windows_cover_a_volume_with_at_most_half_a_window_from_one_to_the_next():
    for size in range(12, 60):
        at = starts(size, 12)
        assert at[0] == 0 and at[-1] == size - 12
        assert all(0 < b - a <= 6 for a, b in itertools.pairwise(at))


def test_the_weights_are_one_in_the_middle_and_never_zero():
    weight = weights((8, 9, 32))
    assert weight.max() == 1 and weight.min() > 0
    assert np.unravel_index(weight.argmax(), weight.shape)[1] == 4


def test_planes_come_once_each_and_are_what_the_network_says_of_the_whole(tmp_path):
    volume = np.random.default_rng(1).normal(size=(31, 22, 40)).astype(np.float32)

    def network(window):
        return np.concatenate([window, -window], 1)

    planes = np.stack(list(probabilities(volume, network, PATCH, lambda share: None)))
    wanted = 1 / (1 + np.exp(-2 * volume))
    np.testing.assert_allclose(planes[:, 0], wanted, atol=1e-5)


@pytest.mark.parametrize("spacing", [(1.2, 0.8, 0.8), (2.5, 0.7, 0.7), (5.0, 1.0, 1.0), (1.0, 1.0, 4.0)])
def test_resampling_is_that_of_nnunet(spacing):
    transform = pytest.importorskip("skimage.transform", reason="what nnU-Net resamples with: scikit-image")
    values = np.random.default_rng(2).normal(size=(14, 18, 16)).astype(np.float32)
    wanted_mm = (1.5, 1.5, 1.5)
    ours = resampled(values, spacing, wanted_mm)
    keys = {"mode": "edge", "anti_aliasing": False, "clip": True, "preserve_range": True}
    if max(spacing) / min(spacing) <= 3:
        theirs = transform.resize(values, ours.shape, order=3, **keys)
    else:
        axis = int(np.argmax(spacing))
        planes = np.moveaxis(values, axis, 0)
        size = np.moveaxis(ours, axis, 0).shape
        planes = np.stack([transform.resize(p, size[1:], order=3, **keys) for p in planes])
        theirs = np.moveaxis(transform.resize(planes, size, order=0, **keys), 0, axis)
    # Clipping is plane by plane here, so that extreme values differ.
    assert np.median(np.abs(ours - theirs)) < 1e-5
    assert np.quantile(np.abs(ours - theirs), 0.95) < 0.05


def test_on_its_own_grid_the_labels_are_those_that_the_network_gives_voxel_for_voxel(tmp_path):
    image = ct_image()
    found = segmented(image, model_folder(tmp_path / "m"), tmp_path)
    bright = sitk.GetArrayFromImage(image) > EDGE_HU
    np.testing.assert_array_equal(sitk.GetArrayFromImage(found.labels) == 36, bright)
    (structure,) = found.structures
    assert (structure.name, structure.voxels, structure.engine) == ("vertebrae_T8", int(bright.sum()), "network")
    assert 0.5 < structure.confidence <= 1


@pytest.mark.parametrize("spacing", [(1.3, 1.3, 3.0), (0.9, 0.9, 0.9), (3.0, 3.0, 2.0)])
@pytest.mark.parametrize("orientation", ["LPS", "RAS", "LAS", "PIR"])
def test_labels_lie_where_the_ct_is_bright_whatever_grid_and_orientation_it_comes_in(tmp_path, spacing, orientation):
    fine = ct_image((60, 66, 62), (1.0, 1.0, 1.0), seed=4)
    image = sitk.Resample(
        fine, [int(60 / s) for s in spacing], sitk.Transform(), sitk.sitkLinear, fine.GetOrigin(), spacing
    )
    image = sitk.DICOMOrient(image, orientation)
    found = segmented(image, model_folder(tmp_path / "m", spacing_mm=(1.5, 1.5, 1.5)), tmp_path)
    assert found.labels.GetDirection() == image.GetDirection()
    labels, bright = sitk.GetArrayFromImage(found.labels) == 36, sitk.GetArrayFromImage(image) > EDGE_HU
    assert 2 * (labels & bright).sum() / (labels.sum() + bright.sum()) > 0.9


def test_a_ct_that_is_smaller_than_a_window_is_padded(tmp_path):
    image = ct_image((7, 30, 9))
    found = segmented(image, model_folder(tmp_path / "m"), tmp_path)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(found.labels) == 36, sitk.GetArrayFromImage(image) > EDGE_HU)


def test_mirrored_inputs_are_averaged_only_when_asked_for(tmp_path):
    """A convolution that looks to one side alone: mirroring makes it look to both."""
    folder = model_folder(tmp_path / "m", mirror_axes=(2,))
    kernel = np.zeros((2, 1, 1, 1, 3))
    kernel[1, ..., 0] = 10.0
    write_network(folder / "model.onnx", kernel, np.array([0.0, -10.0]))
    card = read_card(folder)
    write_card(
        card.model_copy(update={"sha256": hashlib.sha256((folder / "model.onnx").read_bytes()).hexdigest()}), folder
    )
    values = np.zeros(PATCH, np.int16)
    values[:, :, 8] = 1000
    image = sitk.GetImageFromArray(values)
    image.SetSpacing((2.0, 2.0, 2.0))
    image = sitk.DICOMOrient(image, "RAS")

    def columns(found):
        return np.unique(np.argwhere(sitk.GetArrayFromImage(found.labels))[:, 2]).tolist()

    one_side, both = (
        columns(segmented(image, folder, tmp_path)),
        columns(segmented(image, folder, tmp_path, mirror=True)),
    )
    assert len(one_side) == 1 and len(both) == 2


def test_a_model_of_another_orientation_is_refused_by_where_left_and_right_come_out(tmp_path):
    """Its left structure is where HU are high; the CT is bright on the patient's right."""
    labels = ("kidney_left", "kidney_right")
    folder = model_folder(tmp_path / "m", labels)
    kernel, bias = np.zeros((3, 1, 1, 1, 1)), np.array([0.0, -10.0, -10.0])
    kernel[1], kernel[2] = 10.0, -10.0
    write_network(folder / "model.onnx", kernel, bias)
    card = read_card(folder)
    write_card(
        card.model_copy(update={"sha256": hashlib.sha256((folder / "model.onnx").read_bytes()).hexdigest()}), folder
    )
    values = np.full((12, 16, 20), MEAN, np.int16)
    values[:, :, :5], values[:, :, -5:] = MEAN + 3 * DEVIATION, MEAN - 3 * DEVIATION
    image = sitk.GetImageFromArray(values)
    image.SetSpacing((2.0, 2.0, 2.0))
    with pytest.raises(SegmentationError, match="left and right are exchanged in 1 of 1"):
        segmented(image, folder, tmp_path)
    image.SetDirection((-1, 0, 0, 0, -1, 0, 0, 0, 1))
    assert len(segmented(image, folder, tmp_path).structures) == 2


def test_a_network_that_is_not_the_one_of_its_card_is_refused(tmp_path):
    folder = model_folder(tmp_path / "m")
    (folder / "model.onnx").write_bytes((folder / "model.onnx").read_bytes() + b"\0")
    with pytest.raises(SegmentationError, match="SHA-256 differs"):
        NetworkEngine(folder)


def test_a_network_with_another_number_of_channels_than_its_card_is_refused(tmp_path):
    folder = model_folder(tmp_path / "m")
    card = read_card(folder)
    write_card(card.model_copy(update={"labels": {"liver": 1, "spleen": 2}}), folder)
    with pytest.raises(SegmentationError, match=r"returns \(1, 2,"):
        NetworkEngine(folder)


def test_a_model_that_would_need_too_much_memory_says_how_much(tmp_path):
    folder = model_folder(tmp_path / "m", spacing_mm=(0.2, 0.11, 0.11))
    engine = NetworkEngine(folder)
    engine.card = engine.card.model_copy(update={"patch": (900, 16, 16)})
    with pytest.raises(SegmentationError, match="GiB"):
        engine.segment(Volume(ct_image((8, 160, 160)), tmp_path / "ct", units="hu"), lambda *_: None)


PLANS = {
    "dataset_name": "Dataset001_Spine", "plans_name": "nnUNetPlans", "transpose_forward": [0, 1, 2],
    "foreground_intensity_properties_per_channel":
        {"0": {"mean": 150.0, "std": 200.0, "percentile_00_5": -800.0, "percentile_99_5": 1300.0}},
    "configurations": {
        "3d_lowres": {"inherits_from": "3d_fullres", "spacing": [3.0, 3.0, 3.0]},
        "3d_fullres": {"spacing": [1.5, 1.5, 1.5], "patch_size": [128, 128, 128],
                       "normalization_schemes": ["CTNormalization"]},
    },
}  # fmt: skip
DATASET = {"labels": {"background": 0, "vertebrae_T8": 1}, "channel_names": {"0": "CT"}}


def made_card(tmp_path, plans=PLANS, dataset=DATASET, configuration="3d_fullres"):
    for name, content in (("plans.json", plans), ("dataset.json", dataset)):
        (tmp_path / name).write_text(json.dumps(content))
    (tmp_path / "net.onnx").write_bytes(b"network")
    paths = (tmp_path / "net.onnx", tmp_path / "plans.json", tmp_path / "dataset.json")
    return card_from_nnunet(*paths, configuration, orientation="RAS", licence="Apache-2.0", origin="a hospital")


def test_a_card_is_made_of_the_files_of_nnunet_and_read_again(tmp_path):
    card = made_card(tmp_path)
    assert (card.spacing_mm, card.patch, card.intensity.high) == ((1.5, 1.5, 1.5), (128, 128, 128), 1300.0)
    write_card(card, tmp_path)
    assert read_card(tmp_path) == card
    assert made_card(tmp_path, configuration="3d_lowres").spacing_mm == (3.0, 3.0, 3.0)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"transpose_forward": [2, 0, 1]}, "exchanges axes"),
        ({"foreground_intensity_properties_per_channel": {}}, "not the files of an nnU-Net 2 model"),
        ({"configurations": {"3d_fullres": {**PLANS["configurations"]["3d_fullres"],
                                            "normalization_schemes": ["ZScoreNormalization"]}}}, "not as CT"),
        ({"configurations": {"3d_fullres": {**PLANS["configurations"]["3d_fullres"], "patch_size": [512, 512]}}},
         "slice by slice"),
    ],
)  # fmt: skip
def test_what_a_model_needs_and_is_not_done_here_is_said(tmp_path, change, said):
    with pytest.raises(SegmentationError, match=said):
        made_card(tmp_path, plans={**PLANS, **change})


def test_labels_that_are_regions_are_refused(tmp_path):
    with pytest.raises(SegmentationError, match="regions that overlap"):
        made_card(tmp_path, dataset={"labels": {"background": 0, "tumour": [1, 2]}})


def test_the_verb_writes_a_card_and_runs_a_window(tmp_path, capsys):
    folder = model_folder(tmp_path / "m")
    (folder / "card.yaml").unlink()
    plans = {**PLANS, "configurations": {"3d_fullres": {**PLANS["configurations"]["3d_fullres"], "patch_size": PATCH}}}
    for name, content in (("plans.json", plans), ("dataset.json", DATASET)):
        (tmp_path / name).write_text(json.dumps(content))
    command = ["plan", "model", str(folder / "model.onnx"), "--plans", str(tmp_path / "plans.json"), "--dataset"]
    command += [str(tmp_path / "dataset.json"), "--orientation", "RAS", "--licence", "CC0", "--origin", "a test"]
    assert main(command) == 0
    assert "1 structures at 1.5 x 1.5 x 1.5 mm" in capsys.readouterr().out
    assert read_card(folder).licence == "CC0"
    assert main([*command[:-6], "--orientation", "LPL", "--licence", "CC0", "--origin", "a test"]) == 1
    assert "three letters" in capsys.readouterr().err
