"""Sessions on a GPU, with a stand-in for CUDA's runtime whose "GPU" is the host's own memory.

That they work on a real one was seen on an H100 (docs/gpu.md); here it is held what they ask of it.
"""

import ctypes
import gc
import sys
from enum import IntEnum
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from fluoronav.imaging.inference import cuda_session, tensorrt
from fluoronav.imaging.inference.cuda import OnGpu, this_gpu
from fluoronav.imaging.inference.manifest import Approved
from fluoronav.imaging.inference.settings import Unavailable


class Said(IntEnum):
    cudaSuccess = 0
    cudaErrorMemoryAllocation = 2
    cudaErrorHostMemoryAlreadyRegistered = 712


class StandIn:
    """As much of ``cuda.bindings.runtime`` as is used."""

    cudaStreamNonBlocking = 1
    cudaMemcpyKind = SimpleNamespace(cudaMemcpyHostToDevice=1, cudaMemcpyDeviceToHost=2)
    cudaStreamCaptureMode = SimpleNamespace(cudaStreamCaptureModeThreadLocal=1)
    cudaDeviceAttr = SimpleNamespace(cudaDevAttrComputeCapabilityMajor=8, cudaDevAttrComputeCapabilityMinor=9)

    def __init__(self, room: int = 1 << 30):
        self.memory, self.room, self.pinned, self.streams = {}, room, set(), 0
        self.copies, self.recorded, self.replayed = 0, None, 0

    def cudaGetDeviceCount(self):
        return Said.cudaSuccess, 1

    def cudaDeviceGetAttribute(self, attribute, device):
        return Said.cudaSuccess, attribute

    def cudaStreamCreateWithFlags(self, flags):
        self.streams += 1
        return Said.cudaSuccess, 77

    def cudaStreamDestroy(self, stream):
        self.streams -= 1
        return (Said.cudaSuccess,)

    def cudaMalloc(self, size):
        if sum(map(len, self.memory.values())) + size > self.room:
            return Said.cudaErrorMemoryAllocation, None
        block = (ctypes.c_char * size)()
        self.memory[ctypes.addressof(block)] = block
        return Said.cudaSuccess, ctypes.addressof(block)

    def cudaFree(self, address):
        del self.memory[address]
        return (Said.cudaSuccess,)

    def cudaMemcpy(self, to, fro, size, kind):
        self.copies += 1
        ctypes.memmove(to, fro, size)
        return (Said.cudaSuccess,)

    def cudaMemcpyAsync(self, to, fro, size, kind, stream):
        return self.cudaMemcpy(to, fro, size, kind)

    def cudaStreamSynchronize(self, stream):
        return (Said.cudaSuccess,)

    def cudaHostRegister(self, address, size, flags):
        if address in self.pinned:
            return (Said.cudaErrorHostMemoryAlreadyRegistered,)
        self.pinned.add(address)
        return (Said.cudaSuccess,)

    def cudaHostUnregister(self, address):
        self.pinned.remove(address)
        return (Said.cudaSuccess,)

    def cudaGetLastError(self):
        return (Said.cudaSuccess,)

    def cudaStreamBeginCapture(self, stream, mode):
        self.recorded = []
        return (Said.cudaSuccess,)

    def cudaStreamEndCapture(self, stream):
        graph, self.recorded = self.recorded, None
        return Said.cudaSuccess, graph

    def cudaGraphInstantiate(self, graph, flags):
        return Said.cudaSuccess, graph

    def cudaGraphLaunch(self, graph, stream):
        self.replayed += 1
        for work in graph:
            work()
        return (Said.cudaSuccess,)


@pytest.fixture
def gpu(monkeypatch):
    stand_in = StandIn()
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", stand_in)
    return stand_in


def arrays(**sizes):
    return {name: np.arange(n, dtype=np.float32) + k for k, (name, n) in enumerate(sizes.items())}


def on_gpu(gpu, there, name, n):
    return np.frombuffer(gpu.memory[there.address[name]], np.float32, n)


def test_what_changes_is_copied_each_time_and_what_stays_once(gpu):
    given, made = arrays(frame=70000, volume=9, pose=16), arrays(maps=12)
    there = OnGpu(given, made, ("volume",))
    assert gpu.copies == 1 and len(gpu.pinned) == 1, "small arrays are not pinned: they share their pages"
    given["frame"] += 5
    given["volume"] += 5
    there.send()
    np.testing.assert_array_equal(on_gpu(gpu, there, "frame", 70000), given["frame"])
    np.testing.assert_array_equal(on_gpu(gpu, there, "volume", 9), given["volume"] - 5)
    on_gpu(gpu, there, "maps", 12)
    ctypes.memmove(there.address["maps"], given["pose"].ctypes.data, 48)
    there.fetch()
    np.testing.assert_array_equal(made["maps"], given["pose"][:12])
    again = OnGpu(given, made, ("volume",))  # two sessions may read one array
    again.send()


def test_a_session_that_ends_leaves_nothing_on_the_gpu(gpu):
    there = OnGpu(arrays(frame=70000), arrays(maps=12))
    assert gpu.memory and gpu.pinned and gpu.streams == 1
    del there
    gc.collect()
    assert not gpu.memory and not gpu.pinned and gpu.streams == 0


def test_a_gpu_without_room_is_named_and_gives_back_what_it_had(gpu):
    gpu.room = 1000
    with pytest.raises(Unavailable, match="cudaErrorMemoryAllocation"):
        OnGpu(arrays(pose=16, frame=70000), {})
    gc.collect()
    assert not gpu.memory


def test_the_gpu_is_named_by_its_compute_capability(gpu):
    assert this_gpu() == "sm89"


def test_a_tensorrt_engine_is_recorded_once_and_replayed(gpu, monkeypatch):
    x, y = np.zeros(100, np.float32), np.zeros(100, np.float32)

    class Context:
        def __init__(self):
            self.at = {}

        def set_tensor_address(self, name, address):
            self.at[name] = address

        def execute_async_v3(self, stream):
            def work():
                given = np.frombuffer((ctypes.c_char * 400).from_address(self.at["x"]), np.float32)
                np.frombuffer((ctypes.c_char * 400).from_address(self.at["y"]), np.float32)[:] = 2 * given

            work() if gpu.recorded is None else gpu.recorded.append(work)
            return True

    engine = SimpleNamespace(
        num_io_tensors=2, get_tensor_name=lambda k: "xy"[k], get_tensor_shape=lambda name: (100,),
        create_execution_context=Context,
    )  # fmt: skip
    trt = SimpleNamespace(
        __version__="11.0", Logger=type("Logger", (), {"ERROR": 1, "__init__": lambda self, level: None}),
        Runtime=lambda logger: SimpleNamespace(deserialize_cuda_engine=lambda content: engine),
    )  # fmt: skip
    monkeypatch.setattr(tensorrt, "module", lambda kind: trt)
    monkeypatch.setattr(tensorrt, "built_engine", lambda *key: b"")
    model = Approved(Path("twice.onnx"), b"", "", {"x": [100]}, {"y": [100]})
    session = tensorrt.TensorRtSession(model, "tensorrt", {"x": x}, {"y": y})
    for k in range(3):
        x[:] = k
        session.run()
        assert (y == 2 * k).all()
    assert gpu.replayed == 3 and session.provider == "tensorrt 11.0 sm89 fp32"


@pytest.mark.parametrize(
    ("refused", "tries", "recorded"),
    [(0, 1, True), (1, 2, True), (2, 3, False)],
    ids=["as it is", "with ONNX Runtime's own GridSample", "launch by launch"],
)
def test_a_graph_is_recorded_where_it_can_be_and_says_so(monkeypatch, refused, tries, recorded):
    onnx = pytest.importorskip("onnx", reason="the extra `graph` is not installed")
    helper = onnx.helper
    ends = [helper.make_tensor_value_info(n, 1, d) for n, d in (("x", (1, 1, 4, 4)), ("at", (1, 4, 4, 2)), ("y", None))]
    node = helper.make_node("GridSample", ["x", "at"], ["y"])
    graph = helper.make_graph([node], "sampler", ends[:2], ends[2:])
    content = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]).SerializeToString()
    asked = []

    def loaded(model, engine, threads, options):
        asked.append((onnx.load_from_string(model.content).graph.node[0].domain, "enable_cuda_graph" in options))
        if len(asked) <= refused:
            raise Unavailable("nodes of it are not on the GPU")
        return "session"

    monkeypatch.setattr(cuda_session, "loaded", loaded)
    model = Approved(Path("sampler.onnx"), content, "", {}, {})
    assert cuda_session._loaded(model, 2) == ("session", recorded)
    assert asked == [("", True), ("com.microsoft", True), ("", False)][:tries]
