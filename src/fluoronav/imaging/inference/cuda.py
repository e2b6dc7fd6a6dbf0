"""The part of CUDA's runtime that sessions on a GPU need."""

from __future__ import annotations

import importlib
import weakref
from collections.abc import Collection
from typing import Any

from fluoronav.imaging.inference.sessions import Arrays, Float32
from fluoronav.imaging.inference.settings import Unavailable

# Chosen: smaller arrays share pages with others, and are copied fast enough through the driver's own buffer.
_PINNED_FROM_BYTES = 1 << 17


def cudart() -> Any:
    """CUDA's runtime; raises :class:`Unavailable` with the extra that brings its Python bindings."""
    try:
        return importlib.import_module("cuda.bindings.runtime")
    except ImportError as error:
        raise Unavailable(
            f"CUDA's Python bindings are not installed: pip install 'fluoronav[gpu]' or 'fluoronav[rtx]' ({error})"
        ) from error


def checked(answer: tuple[Any, ...]) -> Any:
    """The value of a CUDA call; raises :class:`Unavailable` on any error."""
    error, *values = answer
    if int(error) != 0:
        raise Unavailable(f"CUDA says {error.name}")
    return values[0] if values else None


def this_gpu() -> str:
    """The compute capability of the first GPU, such as ``sm89``; raises :class:`Unavailable` where there is none."""
    cuda = cudart()
    if not checked(cuda.cudaGetDeviceCount()):
        raise Unavailable("there is no NVIDIA GPU")
    major, minor = (
        checked(cuda.cudaDeviceGetAttribute(getattr(cuda.cudaDeviceAttr, f"cudaDevAttrComputeCapability{x}"), 0))
        for x in ("Major", "Minor")
    )
    return f"sm{major}{minor}"


class OnGpu:
    """The GPU's copies of a session's inputs and outputs, and the stream on which they are copied.

    Parameters
    ----------
    given, made : mapping of ndarray of float32
        Inputs and outputs by name, which :meth:`send` copies to the GPU and :meth:`fetch` from it. Large ones are
        pinned, so that a copy needs no intermediate buffer.
    resident : collection of str
        Names in `given` that are copied once, here.

    Attributes
    ----------
    address : dict of str to int
        Of each on the GPU.
    stream : int

    Raises
    ------
    Unavailable
        No GPU, no bindings, or no memory left on it.
    """

    def __init__(self, given: Arrays, made: Arrays, resident: Collection[str] = ()) -> None:
        self._cuda = cuda = cudart()
        self._arrays = given, made
        self.address: dict[str, int] = {}
        self._pinned: list[int] = []
        self.stream = int(checked(cuda.cudaStreamCreateWithFlags(cuda.cudaStreamNonBlocking)))
        # When another case is loaded, the volume of the one before must leave the GPU.
        weakref.finalize(self, _freed, cuda, self.address, self._pinned, self.stream)
        for name, array in {**given, **made}.items():
            self.address[name] = int(checked(cuda.cudaMalloc(array.nbytes)))
        to, fro = (cuda.cudaMemcpyKind.cudaMemcpyHostToDevice, cuda.cudaMemcpyKind.cudaMemcpyDeviceToHost)
        for name in resident:
            checked(cuda.cudaMemcpy(self.address[name], given[name].ctypes.data, given[name].nbytes, to))
        changing = {name: a for name, a in given.items() if name not in resident}
        for array in (*changing.values(), *made.values()):
            if array.nbytes >= _PINNED_FROM_BYTES:
                self._pin(array)
        self._to = [(self.address[name], a.ctypes.data, a.nbytes, to, self.stream) for name, a in changing.items()]
        self._fro = [(a.ctypes.data, self.address[name], a.nbytes, fro, self.stream) for name, a in made.items()]

    def send(self) -> None:
        """Enqueues the copies of the inputs."""
        for copy in self._to:
            checked(self._cuda.cudaMemcpyAsync(*copy))

    def fetch(self) -> None:
        """Enqueues the copies of the outputs, and waits for them."""
        for copy in self._fro:
            checked(self._cuda.cudaMemcpyAsync(*copy))
        self.wait()

    def wait(self) -> None:
        """Waits until the stream is empty."""
        checked(self._cuda.cudaStreamSynchronize(self.stream))

    def _pin(self, array: Float32) -> None:
        (error,) = self._cuda.cudaHostRegister(array.ctypes.data, array.nbytes, 0)
        if int(error) == 0:
            self._pinned.append(array.ctypes.data)
        else:  # already pinned by another session
            self._cuda.cudaGetLastError()


def _freed(cuda: Any, address: dict[str, int], pinned: list[int], stream: int) -> None:
    """Frees what :class:`OnGpu` allocated; errors are ignored, since they mean that the GPU is gone."""
    for pointer in pinned:
        cuda.cudaHostUnregister(pointer)
    for pointer in address.values():
        cuda.cudaFree(pointer)
    cuda.cudaStreamDestroy(stream)
