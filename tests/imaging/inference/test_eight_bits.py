"""The instruments' networks in 8 bits: taken where they are faster, said, held against their hashes, and right."""

import hashlib
import json
import shutil
import subprocess
import sys

import numpy as np
import pytest

from fluoronav.imaging.inference import InferenceSettings, Model, ModelError, eight_bits, engine
from fluoronav.imaging.inference import model as model_module
from fluoronav.imaging.inference.manifest import approved, approved_in_8_bits
from fluoronav.imaging.inference.runner import Runner
from fluoronav.imaging.inference.verify import verify
from fluoronav.stream.detection.stage import DetectionStage
from fluoronav.stream.detection.strip_image import OUTPUTS

WHOLE, SHORT = (InferenceSettings.model_validate({"cpu_precision": p}) for p in ("fp32", "int8"))


def parity_input(name: str = "instruments") -> np.ndarray:
    return np.load(engine(f"{name}.parity.npz"))["given"].astype(np.float32)


def test_the_second_look_says_nearly_the_same_in_8_bits():
    said = []
    for settings in (WHOLE, SHORT):
        model = Model(engine("instrument-strips.onnx"), settings)
        assert model.provider.endswith("int8") == (settings is SHORT)
        model.input[...] = parity_input("instrument-strips")
        model.run()
        said.append(model.output.copy())
    assert 0 < np.abs(said[1] - said[0]).max() < 0.1 * np.abs(said[0]).max()


def test_it_says_nearly_what_the_whole_network_says():
    said = {}
    for settings in (WHOLE, SHORT):
        model = Model(engine("instruments.onnx"), settings)
        model.input[...] = parity_input()
        model.run()
        said[settings.cpu_precision] = model.output.copy()
    off, whole = said["int8"] - said["fp32"], said["fp32"]
    assert 0 < np.sqrt((off**2).mean()) < 0.1 * np.sqrt((whole**2).mean())
    # And where the whole one is sure, it is.
    assert (said["int8"][whole > 0.8] > 0.5).all() and (said["int8"][whole < 0.05] < 0.35).all()


@pytest.mark.parametrize("fast", [True, False])
def test_it_is_taken_where_the_cpu_has_instructions_for_it(monkeypatch, fast):
    monkeypatch.setattr(model_module, "fast_here", lambda: fast)
    model = Model(engine("instruments.onnx"))
    chosen = approved_in_8_bits(engine("instruments.onnx")) if fast else approved(engine("instruments.onnx"))
    assert chosen is not None
    assert model.provider == "onnxruntime CPUExecutionProvider" + (", int8" if fast else "")
    assert model.sha256 == chosen.sha256  # what the record of each frame names


def test_who_asks_for_one_precision_gets_it(monkeypatch):
    monkeypatch.setattr(model_module, "fast_here", lambda: False)
    assert Model(engine("instruments.onnx"), SHORT).provider.endswith("int8")
    monkeypatch.setattr(model_module, "fast_here", lambda: True)
    assert not Model(engine("instruments.onnx"), WHOLE).provider.endswith("int8")
    # One that does not ship so runs as ever.
    assert not Model(engine("denoiser.onnx"), SHORT).provider.endswith("int8")


def test_instructions_are_read_from_this_cpu(monkeypatch):
    import llvmlite.binding

    for features, fast in (({"avx2": True}, True), ({"avx": True, "avx2": False}, False), ({}, False)):
        monkeypatch.setattr(llvmlite.binding, "get_host_cpu_features", lambda f=features: f)
        eight_bits.fast_here.cache_clear()
        assert eight_bits.fast_here() is fast
    eight_bits.fast_here.cache_clear()


def test_an_exchanged_one_is_refused_by_name(tmp_path):
    for name in ("instruments.onnx", "instruments.int8.onnx", "manifest.json"):
        shutil.copy(engine(name), tmp_path)
    small, path = tmp_path / "instruments.int8.onnx", tmp_path / "instruments.onnx"
    small.write_bytes(path.read_bytes())
    with pytest.raises(ModelError, match=r"instruments.int8.onnx: its SHA-256 is .* not the file that was approved"):
        Model(path, SHORT)
    assert Model(path, WHOLE).provider.endswith("CPUExecutionProvider")
    small.unlink()
    with pytest.raises(ModelError, match=r"instruments.int8.onnx: no such file"):
        Model(path, SHORT)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    del manifest["instruments.onnx"]["int8"]["sha256"]
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ModelError, match="int8 of instruments.onnx needs file and sha256"):
        Model(path, SHORT)


def test_the_spare_of_an_engine_that_fails_is_in_8_bits_too():
    """And the record names the file that ran, from the frame on in which it did."""
    model = Model(engine("instruments.onnx"), SHORT)

    class Gone:
        provider = "a GPU"

        def run(self):
            raise RuntimeError("gone")

    model._session, model._spare, model.sha256 = Gone(), model._session, "of the whole one"
    model.run()
    short = approved_in_8_bits(engine("instruments.onnx"))
    assert short is not None and model.sha256 == short.sha256 and model.provider.endswith("int8")


def test_a_network_is_put_into_8_bits_by_what_it_is_shown():
    pytest.importorskip("onnx", reason="the extra `graph` is not installed")
    whole = approved(engine("instrument-strips.onnx"))
    given = parity_input("instrument-strips")
    small = eight_bits.quantised(whole, [given, given[::-1].copy()])
    assert len(small.content) < 0.4 * len(whole.content)
    answers = []
    for model in (whole, small):
        x, y = given.copy(), np.zeros((2, OUTPUTS), np.float32)
        Runner(model, InferenceSettings(), {"strips": x}, {"judgements": y}).run()
        answers.append(y)
    assert 0 < np.abs(answers[1] - answers[0]).max() < 0.15 * np.abs(answers[0]).max()


NAMES = ("instruments", "instrument-tiles", "instrument-strips")


@pytest.fixture
def copied(tmp_path):
    """The networks where they may be changed."""
    for file in engine("manifest.json").parent.iterdir():
        if file.suffix in (".onnx", ".npz") or file.name == "manifest.json":
            shutil.copy(file, tmp_path)
    return tmp_path


def with_answer(folder, made, name="instruments"):
    """Exchanges the answer of an example, and its hash: as if this CPU computed something else."""
    path = folder / f"{name}.parity.npz"
    np.savez(path, given=parity_input(name), made=made)
    change_example(folder, name, sha256=hashlib.sha256(path.read_bytes()).hexdigest())


def change_example(folder, name="instruments", **change):
    manifest = folder / "manifest.json"
    entries = json.loads(manifest.read_text())
    example = entries[f"{name}.onnx"]["int8"]["example"] | change
    entries[f"{name}.onnx"]["int8"]["example"] = {k: v for k, v in example.items() if v is not ...}
    manifest.write_text(json.dumps(entries))


def answer(name="instruments"):
    return np.load(engine(f"{name}.parity.npz"))["made"]


def without_8_bits(model):
    """Whether it runs the whole network; returns why it does."""
    assert model.provider.startswith("onnxruntime CPUExecutionProvider (whole: ")
    assert model.sha256 == approved(engine("instruments.onnx")).sha256
    assert not model.input.any() and not model.output.any(), "the example must not be taken for a frame"
    model.input[...] = parity_input()
    model.run()
    np.testing.assert_allclose(model.output, answer(), atol=1e-4)
    return model.why


@pytest.mark.parametrize("asked", ["auto", "int8"])
@pytest.mark.parametrize("factor", [1.5, np.nan])
def test_where_its_answer_is_wrong_the_whole_network_runs_and_says_why(copied, monkeypatch, caplog, asked, factor):
    monkeypatch.setattr(model_module, "fast_here", lambda: True)
    with_answer(copied, answer() * np.float32(factor))
    model = Model(copied / "instruments.onnx", InferenceSettings.model_validate({"cpu_precision": asked}))
    assert "off on this CPU, 4.5% where they were made" in without_8_bits(model)
    assert "the CPU runs the whole network" in caplog.text
    assert bool(model.fault) == (asked == "int8"), "who asked for 8 bits is told that it is not what runs"


def test_a_wrong_one_is_refused_to_who_refuses_a_fall_back(copied):
    with_answer(copied, answer() * 1.5)
    refusing = InferenceSettings(cpu_precision="int8", fallback="refuse")
    with pytest.raises(ModelError, match=r"instruments.onnx: inference.cpu_precision int8: 8 bits are .* off on this"):
        Model(copied / "instruments.onnx", refusing)


def test_less_than_a_tenth_is_too_much_where_it_should_be_a_hundredth(copied):
    """Saturating sums make the second look 2.3 % wrong, instead of 0.6: under any bound that fits the first look."""
    rng = np.random.default_rng(0)
    made = answer("instrument-strips")
    noise = rng.normal(0, 0.022 * np.sqrt((made**2).mean()), made.shape).astype(np.float32)
    with_answer(copied, made + noise, "instrument-strips")
    assert "off on this CPU, 0.6%" in Model(copied / "instrument-strips.onnx", SHORT).why


def test_the_stage_says_which_look_runs_whole_and_why(copied, monkeypatch, camera):
    monkeypatch.setattr("fluoronav.stream.detection.two_stage.engine", copied.joinpath)
    with_answer(copied, answer("instrument-strips") * 1.5, "instrument-strips")
    stage = DetectionStage(SHORT)
    stage.prepare(None, camera)
    first, second = stage.engine.split("; second network: ")
    assert first.endswith("int8") and "(whole: 8 bits are" in second


@pytest.mark.parametrize("how", ["missing", "exchanged", "not named", "of another shape", "no archive"])
def test_without_its_example_the_whole_network_runs_and_says_why(copied, how):
    path = copied / "instruments.parity.npz"
    said = {"missing": "no such file", "exchanged": "its SHA-256 is", "not named": "needs file, sha256 and off",
            "of another shape": "broadcast", "no archive": "cannot be read as an example"}[how]  # fmt: skip
    if how == "missing":
        path.unlink()
    elif how == "exchanged":
        path.write_bytes((copied / "instrument-strips.parity.npz").read_bytes())
    elif how == "not named":
        change_example(copied, off=...)
    else:
        if how == "no archive":
            path.write_bytes(b"no archive")
        else:
            np.savez(path, given=parity_input()[:, :3], made=answer())
        change_example(copied, sha256=hashlib.sha256(path.read_bytes()).hexdigest())
    assert said in without_8_bits(Model(copied / "instruments.onnx", SHORT))


def test_the_spare_of_an_engine_is_tried_as_well(copied):
    """A GPU that vanishes must not leave a wrong network behind."""
    with_answer(copied, answer() * 1.5)
    model = Model(copied / "instruments.onnx", SHORT)

    class Gone:
        provider = "a GPU"

        def run(self):
            raise RuntimeError("gone")

    model._session, model._spare = Gone(), model._session
    model._instead_of_8_bits(approved(engine("instruments.onnx")), "tried")
    assert isinstance(model._session, Gone)
    model.run()
    assert model.provider.endswith("(whole: tried)") and model.sha256 == approved(engine("instruments.onnx")).sha256


def test_verify_says_what_runs_where_8_bits_are_wrong(copied, monkeypatch):
    monkeypatch.setattr(
        "fluoronav.imaging.inference.verify.shipped_models", lambda: [copied / "instrument-strips.onnx"]
    )
    with_answer(copied, answer("instrument-strips") * 1.5, "instrument-strips")
    _, short = verify("cpu")["models"]
    assert "(whole: 8 bits are" in short["provider"] and short["within"]


@pytest.mark.parametrize("name", NAMES)
def test_no_sum_of_two_products_can_saturate_in_16_bits(name):
    """What AVX2 and AVX-512 without VNNI compute: an activation of 0 to 255 by a weight, twice, added in 16 bits."""
    onnx = pytest.importorskip("onnx", reason="the extra `graph` is not installed")
    graph = onnx.load(engine(f"{name}.int8.onnx")).graph
    weights = [
        onnx.numpy_helper.to_array(x).astype(int)
        for x in graph.initializer
        if x.data_type == onnx.TensorProto.INT8 and len(x.dims) > 1
    ]
    assert len(weights) >= sum(node.op_type in ("Conv", "Gemm", "MatMul") for node in graph.node) - 1
    assert max(2 * 255 * np.abs(w).max() for w in weights) <= np.iinfo(np.int16).max


def test_the_network_for_a_tile_has_the_weights_of_the_first_network():
    onnx = pytest.importorskip("onnx", reason="the extra `graph` is not installed")
    for suffix in ("onnx", "int8.onnx"):
        whole, tile = (onnx.load(engine(f"{n}.{suffix}")).graph for n in ("instruments", "instrument-tiles"))
        assert [x.SerializeToString() for x in tile.initializer] == [x.SerializeToString() for x in whole.initializer]
        assert [x.SerializeToString() for x in tile.node] == [x.SerializeToString() for x in whole.node]


def test_a_cpu_that_cannot_be_asked_has_no_instructions_for_it(monkeypatch):
    import llvmlite.binding

    def silent():
        raise RuntimeError("LLVM does not know this CPU")

    monkeypatch.setattr(llvmlite.binding, "get_host_cpu_features", silent)
    eight_bits.fast_here.cache_clear()
    assert eight_bits.fast_here() is False
    eight_bits.fast_here.cache_clear()


def test_every_network_in_8_bits_has_an_example_in_the_manifest():
    for name in NAMES:
        model = Model(engine(f"{name}.onnx"), SHORT)
        assert model.provider.endswith("int8") and model.why == "int8 was asked for"


def test_it_is_right_on_a_cpu_without_vnni():
    """An emulated Haswell, which has AVX2 and nothing later: sums of two products are made in 16 bits there."""
    if (emulator := shutil.which("qemu-x86_64")) is None:
        pytest.skip("qemu-user is not installed")
    program = """
from fluoronav.imaging.inference import InferenceSettings, Model, engine
for name in ("instruments", "instrument-tiles", "instrument-strips"):
    print(Model(engine(f"{name}.onnx")).provider)
    print(Model(engine(f"{name}.onnx"), InferenceSettings(cpu_precision="int8", fallback="refuse")).provider)
"""
    command = [emulator, "-cpu", "Haswell", sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-800:]
    in_8_bits = "onnxruntime CPUExecutionProvider, int8"
    assert done.stdout.splitlines() == [in_8_bits] * 6, "right, so that it is taken by itself and where asked for"
