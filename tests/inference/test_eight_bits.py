"""The instruments' networks in 8 bits: taken where they are faster, said, held against their hashes, and right."""

import json
import shutil

import numpy as np
import pytest

from fluoronav.inference import InferenceSettings, Model, ModelError, eight_bits, engine
from fluoronav.inference import model as model_module
from fluoronav.inference.manifest import approved, approved_in_8_bits
from fluoronav.inference.runner import Runner
from fluoronav.instruments.strips import OUTPUTS

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

    for features, fast in (({"avx512vnni": True}, True), ({"avx2": True, "avx512vnni": False}, False), ({}, False)):
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
