"""ONNX Runtime's CUDA provider: arrays that stay on the GPU, and its launches as one CUDA graph where it can."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from fluoronav.inference.cuda import Arrays, OnGpu
from fluoronav.inference.manifest import Approved
from fluoronav.inference.sessions import loaded
from fluoronav.inference.settings import Unavailable

# HEURISTIC asks cuDNN which convolution is best; EXHAUSTIVE would try them all, at each start.
_OPTIONS = {"cudnn_conv_algo_search": "HEURISTIC"}


class CudaSession:
    """A graph in ONNX Runtime on an NVIDIA GPU; parameters and errors as of :class:`.sessions.OrtSession`.

    Parameters
    ----------
    resident : collection of str
        Inputs that never change; they are copied to the GPU once.
    """

    def __init__(
        self, model: Approved, threads: int, given: Arrays, made: Arrays, resident: Collection[str] = ()
    ) -> None:  # fmt: skip
        self.provider = "onnxruntime CUDAExecutionProvider"
        try:
            # Refused when any node of the graph would run on the CPU.
            self._session = loaded(model, "cuda", threads, _OPTIONS | {"enable_cuda_graph": "1"})
            self.provider += ", CUDA graph"
        except Unavailable:
            self._session = loaded(model, "cuda", threads, _OPTIONS)
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
        self._there.wait()  # ONNX Runtime has a stream of its own
        self._session.run_with_iobinding(self._binding)
        self._there.fetch()
