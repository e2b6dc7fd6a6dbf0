"""Networks as files: only the approved ones, on the engine that was asked for, or on the CPU and saying so."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fluoronav.imaging.inference import InferenceSettings, Model, ModelError, engine
from fluoronav.imaging.inference.cache import TARGETS, EngineKey, built_engine, keep
from fluoronav.imaging.inference.half import half
from fluoronav.imaging.inference.manifest import approved, shipped_models
from fluoronav.imaging.inference.verify import table, verify


def test_a_model_is_loaded_by_its_hash_or_not_at_all(tmp_path):
    for name in ("instruments.onnx", "manifest.json"):
        shutil.copy(engine(name), tmp_path)
    path = tmp_path / "instruments.onnx"
    whole = InferenceSettings(cpu_precision="fp32")
    assert Model(path, whole).provider == "onnxruntime CPUExecutionProvider"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(ModelError, match=r"instruments.onnx: its SHA-256 is .* not the file that was approved"):
        Model(path)
    shutil.copy(engine("instruments.onnx"), tmp_path)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    manifest["instruments.onnx"]["inputs"]["frame"] = [1, 2, 512, 512]
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ModelError, match=r"frame has shape \[1, 5, 256, 256\], the manifest says"):
        Model(path, whole)
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(ModelError, match="by its hash or not at all"):
        Model(path)
    with pytest.raises(ModelError, match="no such file"):
        Model(tmp_path / "other.onnx")


@pytest.mark.parametrize("name", ["instruments", "instrument-strips", "denoiser"])
def test_a_network_says_what_it_said_where_it_was_trained(name):
    model = Model(engine(f"{name}.onnx"), InferenceSettings(cpu_precision="fp32"))
    kept = np.load(engine(f"{name}.parity.npz"))
    model.input[...] = kept["given"].astype(np.float32)
    model.run()
    assert np.abs(model.output - kept["made"]).max() < 1e-4 * np.abs(kept["made"]).max()


def test_what_cannot_be_had_is_refused_or_said_or_passed_over_as_the_settings_ask(caplog):
    path = engine("instruments.onnx")
    with pytest.raises(ModelError, match=r"instruments.onnx: inference.engine cuda: this ONNX Runtime has no CUDA"):
        Model(path, InferenceSettings(engine="cuda", fallback="refuse"))
    warned = Model(path, InferenceSettings(engine="cuda", fallback="warn"))
    assert "CPUExecutionProvider" in warned.provider and "cuda was asked for and the CPU is used" in warned.fault
    assert "cuda was asked for" in caplog.text
    allowed = Model(path, InferenceSettings(engine="cuda", fallback="allow"))
    assert "CPUExecutionProvider" in allowed.provider and allowed.fault == ""


def test_a_session_that_breaks_in_mid_stream_costs_no_frame():
    """A GPU that vanishes: a stand-in for its session, since there is none here, that fails from the third frame on."""
    path = engine("instruments.onnx")
    model, reference = Model(path), Model(path)

    class Vanishing:
        provider = "a GPU"
        runs = 0

        def run(self):
            self.runs += 1
            if self.runs > 2:
                raise RuntimeError("CUDA says cudaErrorDeviceUnavailable")

    model._session, model._spare, model.provider = Vanishing(), model._session, "a GPU"
    x = np.random.default_rng(0).normal(0, 0.5, model.input.shape).astype(np.float32)
    for k in range(5):
        model.input[...] = reference.input[...] = x
        model.run()
        assert (model.fault == "") == (k < 2)
    reference.run()
    np.testing.assert_allclose(model.output, reference.output)
    assert "cudaErrorDeviceUnavailable" in model.fault and "CPU" in model.provider
    refusing = Model(path, InferenceSettings(fallback="refuse"))
    refusing._session, refusing._spare = Vanishing(), refusing._session
    refusing._session.runs = 5
    with pytest.raises(RuntimeError, match="cudaErrorDeviceUnavailable"):
        refusing.run()


def test_an_engine_that_runs_out_of_memory_is_given_up_as_well():
    """Regression: such an error has no text, and looking for its first line broke the frame."""
    model = Model(engine("instruments.onnx"))

    class Full:
        provider = "a GPU"

        def run(self):
            raise MemoryError

    model._session, model._spare = Full(), model._session
    model.run()
    assert "MemoryError" in model.fault and "CPU" in model.provider


@pytest.mark.parametrize("megabytes", [1, 8, 20])
def test_a_computer_without_memory_for_a_network_says_so_by_name(megabytes):
    program = f"""
import resource
from fluoronav.imaging.inference import Model, ModelError, engine
kept = Model(engine("instruments.onnx"))  # what all networks share
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + {megabytes} * 2**20,) * 2)
try:
    Model(engine("denoiser.onnx"))
except ModelError as error:
    print("ModelError", error)
"""
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120).stdout
    assert "ModelError" in said and "denoiser.onnx" in said


def test_auto_takes_the_first_engine_that_there_is_and_says_which():
    model = Model(engine("instruments.onnx"), InferenceSettings(engine="auto"))
    assert "OpenVINO" in model.provider or "CPUExecutionProvider" in model.provider
    assert model.fault == ""


def test_openvino_says_what_the_cpu_says():
    pytest.importorskip("onnxruntime_ep_openvino", reason="the extra `openvino` is not installed")
    if "GenuineIntel" not in Path("/proc/cpuinfo").read_text():
        # Its provider does not offer itself on other makers' CPUs; that must be said, and `auto` go on without it.
        with pytest.raises(ModelError, match="inference.engine openvino: .*CPUs of Intel only"):
            verify("openvino")
        return
    result = verify("openvino")
    assert [m["name"] for m in result["models"]] == [p.name for p in shipped_models()]
    assert all(m["within"] and "OpenVINO" in m["provider"] for m in result["models"])
    assert "TOO FAR" not in table(result)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr("fluoronav.imaging.inference.cache.cache_folder", lambda kind: tmp_path)
    return tmp_path


def test_a_missing_a_stale_and_a_damaged_engine_are_refused_by_name_with_the_command(cache):
    model = approved(engine("instruments.onnx"))

    def refused(said, version="1.7", target="sm89"):
        with pytest.raises(ModelError, match=said) as caught:
            built_engine(model, "tensorrt-rtx", version, target)
        assert f"fluoronav engines build --engine tensorrt-rtx --target {target}" in str(caught.value)

    refused("instruments.onnx: has no tensorrt-rtx engine for sm89")
    keep(EngineKey("instruments", model.sha256, "tensorrt-rtx", "1.6", "sm89"), b"built before an update")
    refused("stale: built for version 1.6, not 1.7")
    refused("stale: built for target sm89, not sm75", target="sm75")
    keep(EngineKey("instruments", "0" * 64, "tensorrt-rtx", "1.7", "sm86"), b"of another model")
    refused("stale: built for model 000000000000, not", target="sm86")
    path = keep(EngineKey("instruments", model.sha256, "tensorrt-rtx", "1.7", "sm89"), b"an engine")
    assert built_engine(model, "tensorrt-rtx", "1.7", "sm89") == b"an engine"
    path.write_bytes(b"half an eng")
    refused("is damaged")


@pytest.mark.parametrize("path", shipped_models(), ids=lambda path: path.name)
def test_every_network_bears_half_precision(path):
    """On the CPU, whose answer in half precision says how much the rounding of weights and activations matters."""
    pytest.importorskip("onnx", reason="the extra `graph` is not installed")
    import onnxruntime

    model = approved(path)
    given = np.load(path.with_suffix(".parity.npz"))["given"].astype(np.float32)
    whole, halved = (
        onnxruntime.InferenceSession(m.content, providers=["CPUExecutionProvider"]).run(
            None, {next(iter(m.inputs)): given}
        )[0]
        for m in (model, half(model))
    )
    assert len(half(model).content) < 0.6 * len(model.content)
    assert 0 < np.abs(whole - halved).max() < 3e-3 * np.abs(whole).max()


def test_half_precision_bears_a_converter_that_makes_one_cast_twice(monkeypatch):
    """ONNX Runtime 1.31's does, and then refuses the graph."""
    onnx = pytest.importorskip("onnx", reason="the extra `graph` is not installed")
    import onnxruntime
    from onnxruntime.transformers import float16

    def twice(model, **options):
        converted = convert(model, **options)
        (cast, *_) = (n for n in converted.graph.node if n.op_type == "Cast" and n.output[0] not in ("maps", "frame"))
        converted.graph.node.append(cast)
        return converted

    convert = float16.convert_float_to_float16
    monkeypatch.setattr(float16, "convert_float_to_float16", twice)
    model = approved(engine("instruments.onnx"))
    with pytest.raises(Exception, match="same node name|must be in single static assignment|Duplicate definition"):
        given = twice(onnx.load_from_string(model.content), keep_io_types=True).SerializeToString()
        onnxruntime.InferenceSession(given, providers=["CPUExecutionProvider"])
    onnxruntime.InferenceSession(half(model).content, providers=["CPUExecutionProvider"])


def test_an_engine_in_half_precision_is_another_engine(cache):
    model = approved(engine("instruments.onnx"))
    keep(EngineKey("instruments", model.sha256, "tensorrt-rtx", "1.7", "sm89"), b"in single precision")
    with pytest.raises(
        ModelError, match="has no tensorrt-rtx engine for sm89 in fp16; .* --target sm89 --precision fp16"
    ):
        built_engine(model, "tensorrt-rtx", "1.7", "sm89", "fp16")
    keep(EngineKey("instruments", model.sha256, "tensorrt-rtx", "1.7", "sm89", "fp16"), b"in half")
    assert built_engine(model, "tensorrt-rtx", "1.7", "sm89", "fp16") == b"in half"
    assert built_engine(model, "tensorrt-rtx", "1.7", "sm89") == b"in single precision"


@pytest.mark.parametrize("target", TARGETS)
def test_every_network_is_built_for_every_gpu_without_one(cache, target):
    pytest.importorskip("tensorrt_rtx", reason="the extra `rtx` is not installed")
    from fluoronav.imaging.inference.tensorrt import build

    for path in shipped_models():
        for precision in ("fp32", "fp16"):
            key, content = build(approved(path), "tensorrt-rtx", target, precision)
            assert key.target == target and len(content) > 100_000
            keep(key, content)
            assert built_engine(approved(path), "tensorrt-rtx", key.version, target, precision) == content


def test_a_target_that_does_not_exist_is_refused(cache):
    pytest.importorskip("tensorrt_rtx", reason="the extra `rtx` is not installed")
    from fluoronav.imaging.inference.tensorrt import build

    with pytest.raises(ModelError, match="'sm42' is unknown to TensorRT-RTX .* it knows sm"):
        build(approved(engine("instruments.onnx")), "tensorrt-rtx", "sm42")
