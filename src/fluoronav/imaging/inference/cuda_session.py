"""ONNX Runtime's CUDA provider, with arrays that stay on the GPU and, where possible, one CUDA graph."""

from __future__ import annotations

import logging
from collections.abc import Collection
from dataclasses import replace
from typing import Any

import numpy as np

from fluoronav.imaging.inference.cuda import OnGpu
from fluoronav.imaging.inference.manifest import Approved
from fluoronav.imaging.inference.sessions import Arrays, loaded
from fluoronav.imaging.inference.settings import Unavailable

log = logging.getLogger("fluoronav")

# HEURISTIC lets cuDNN choose a convolution; EXHAUSTIVE would try them all at each start.
_OPTIONS = {"cudnn_conv_algo_search": "HEURISTIC"}
_OWN_DOMAIN = "com.microsoft"


class CudaSession:
    """A graph in ONNX Runtime on an NVIDIA GPU; parameters and errors as of :class:`.sessions.OrtSession`.

    Parameters
    ----------
    resident : collection of str
        Inputs that never change, and are copied to the GPU once.
    """

    def __init__(
        self, model: Approved, threads: int, given: Arrays, made: Arrays, resident: Collection[str] = ()
    ) -> None:  # fmt: skip
        self._session, recorded = _loaded(model, threads)
        self.provider = "onnxruntime CUDAExecutionProvider" + (", CUDA graph" if recorded else "")
        self._there = OnGpu(given, made, resident)
        self._binding = self._session.io_binding()
        for name, array in given.items():
            self._binding.bind_input(name, "cuda", 0, np.float32, array.shape, self._there.address[name])
        for name, array in made.items():
            self._binding.bind_output(name, "cuda", 0, np.float32, array.shape, self._there.address[name])
        self._session.run_with_iobinding(self._binding)  # allocates, and records the graph

    def run(self) -> None:
        """Input to output."""
        self._there.send()
        self._there.wait()  # ONNX Runtime uses another stream
        self._session.run_with_iobinding(self._binding)
        self._there.fetch()


def _loaded(model: Approved, threads: int) -> tuple[Any, bool]:
    """The session, and whether it is recorded as a CUDA graph."""
    # ONNX Runtime refuses a CUDA graph where any node runs on the CPU.
    recorded = _OPTIONS | {"enable_cuda_graph": "1"}
    try:
        return loaded(model, "cuda", threads, recorded), True
    except Unavailable as error:
        log.info("%s: not as it is: %s", model.path.name, error)
    try:
        return loaded(_with_own_sampler(model), "cuda", threads, recorded), True
    except Unavailable as error:
        log.info("%s: not as a CUDA graph: %s", model.path.name, error)
    return loaded(model, "cuda", threads, _OPTIONS), False


def _with_own_sampler(model: Approved) -> Approved:
    """The same graph with ONNX Runtime's own GridSample, since some versions lack the standard one on a GPU."""
    if b"GridSample" not in model.content:  # no need to import onnx
        raise Unavailable("it has no GridSample")
    try:
        import onnx
    except ImportError as error:
        raise Unavailable(f"needs onnx: pip install 'fluoronav[gpu]' ({error})") from error
    graph = onnx.load_from_string(model.content)
    for node in graph.graph.node:
        if node.op_type == "GridSample":
            node.domain = _OWN_DOMAIN
    graph.opset_import.append(onnx.helper.make_opsetid(_OWN_DOMAIN, 1))
    return replace(model, content=graph.SerializeToString())
