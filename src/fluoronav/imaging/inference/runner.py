"""A graph on the engine of the settings, with the CPU as fallback."""

from __future__ import annotations

import logging
import threading
from collections.abc import Collection

from fluoronav.imaging.inference.cuda_session import CudaSession
from fluoronav.imaging.inference.half import half
from fluoronav.imaging.inference.manifest import Approved, MissingError, ModelError, in_a_line
from fluoronav.imaging.inference.sessions import Arrays, OrtSession, Session
from fluoronav.imaging.inference.settings import AUTO_ORDER, Engine, InferenceSettings, Precision, Unavailable
from fluoronav.imaging.inference.tensorrt import TensorRtSession

log = logging.getLogger("fluoronav")

# Stages are prepared concurrently, but a CUDA graph cannot be recorded while another thread allocates on the GPU.
_ONE_AT_A_TIME = threading.Lock()


def opened(
    model: Approved, engine: Engine, threads: int, given: Arrays, made: Arrays, resident: Collection[str] = (),
    precision: Precision = "fp32",
) -> Session:  # fmt: skip
    """A session on one engine, without fallback.

    See :class:`OrtSession`, :class:`CudaSession` and :class:`TensorRtSession`.
    """
    with _ONE_AT_A_TIME:
        if engine in ("tensorrt", "tensorrt-rtx"):
            return TensorRtSession(model, engine, given, made, resident, precision)
        if engine == "cuda":
            return CudaSession(half(model) if precision == "fp16" else model, threads, given, made, resident)
        return OrtSession(model, engine, threads, given, made)


class Runner:
    """Runs one graph with inputs and outputs at fixed addresses.

    Parameters
    ----------
    model : Approved
    settings : InferenceSettings
    given, made : dict of str to ndarray
        Inputs and outputs by name.
    resident : collection of str
        Inputs that never change, and may stay on the GPU.
    on_cpu : Approved, optional
        The network that ONNX Runtime runs on the CPU instead: the same in 8 bits.
    spare : bool
        Load a session on the CPU, too, which takes over when the engine fails; without it :meth:`run` raises.

    Attributes
    ----------
    provider : str
        The engine that is used.
    sha256 : str
        Of the model file that is used.
    fault : str
        Why another engine than that of the settings is used; empty where it is not, or the settings allow it.

    Raises
    ------
    ModelError
        The engine is not available and the settings refuse a fallback.
    """

    def __init__(
        self,
        model: Approved,
        settings: InferenceSettings,
        given: Arrays,
        made: Arrays,
        resident: Collection[str] = (),
        on_cpu: Approved | None = None,
        *,
        spare: bool = True,
    ) -> None:
        self._settings, self._arrays, self._resident = settings, (given, made), resident
        self._on_cpu = on_cpu or model
        self.name, self.fault = model.path.name, ""
        self._session = self._first_of(model) if settings.engine == "auto" else self._asked_for(model, settings.engine)
        self.provider = self._session.provider
        # Loaded now, so that no frame waits for it when a GPU fails.
        self._spare: Session | None = None
        by_cpu = "CPUExecutionProvider" in self.provider
        self.sha256 = self._on_cpu.sha256 if by_cpu else model.sha256
        if spare and not by_cpu:
            self._spare = self._opened(model, "cpu")

    @property
    def on_gpu(self) -> bool:
        """Whether it runs on a GPU now."""
        return self.provider.startswith("tensorrt") or "CUDA" in self.provider

    def run(self) -> None:
        """Computes the outputs; when the engine fails, the CPU takes over within the same frame."""
        try:
            self._session.run()
        except Exception as error:
            if self._spare is None or self._settings.fallback == "refuse":
                raise
            self.fault = f"{self.failed_by(error)}; the CPU goes on"
            log.error(self.fault)
            self._session, self._spare = self._spare, None
            self.provider, self.sha256 = self._session.provider, self._on_cpu.sha256
            self._session.run()

    def failed_by(self, error: Exception) -> str:
        """One line on what failed and why."""
        return f"{self.name}: {self.provider} failed ({in_a_line(error)[:120]})"

    @property
    def _on_the_cpu(self) -> Session:
        """The CPU's session, in use or spare."""
        return self._session if self._spare is None else self._spare

    def _instead_of_8_bits(self, model: Approved, why: str) -> None:
        """Makes the CPU run the network in 32 bits, and adds the reason to the provider."""
        self._on_cpu = model
        session = self._opened(model, "cpu")
        session.provider += f" (whole: {why})"
        if self._spare is None:
            self._session, self.provider, self.sha256 = session, session.provider, model.sha256
        else:
            self._spare = session

    def _opened(self, model: Approved, engine: Engine) -> Session:
        s = self._settings
        model = self._on_cpu if engine == "cpu" else model
        return opened(model, engine, s.threads, *self._arrays, self._resident, s.precision)

    def _first_of(self, model: Approved) -> Session:
        """A session for `auto`: on the first engine of the order that this computer has."""
        for engine in AUTO_ORDER:
            try:
                return self._opened(model, engine)
            except Unavailable as error:
                log.info("%s: not on %s: %s", self.name, engine, error)
            except ModelError as error:
                if engine == "cpu":
                    raise
                # The GPU has no built engine yet: a warning, since the user can build one.
                log.warning("%s", error)
        raise ModelError(f"{model.path}: nothing runs it")

    def _asked_for(self, model: Approved, engine: Engine) -> Session:
        try:
            return self._opened(model, engine)
        except (Unavailable, ModelError) as error:
            if engine == "cpu" or self._settings.fallback == "refuse":
                kind = MissingError if isinstance(error, MissingError) else ModelError
                raise kind(f"{self.name}: inference.engine {engine}: {error}") from error
            if self._settings.fallback == "warn":
                self.fault = f"{self.name}: {engine} was asked for and the CPU is used: {error}"
                log.warning(self.fault)
        return self._opened(model, "cpu")
