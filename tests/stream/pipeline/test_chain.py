"""How the stages of a chain are prepared."""

import subprocess
import sys
import threading

import numpy as np
import pytest

from fluoronav.imaging.xray.detector import DetectorCalibration
from fluoronav.stream.detection.stage import DetectionStage
from fluoronav.stream.frame import Budget, FrameRecord
from fluoronav.stream.pipeline.chain import STAGES, Chain
from fluoronav.stream.registration.stage import RegistrationStage


class Meeting:
    """A stage whose preparation ends when another's has begun, too."""

    engine = "none"

    def __init__(self, name: str, both: threading.Barrier) -> None:
        self.name, self._both = name, both

    def prepare(self, case, camera, progress) -> None:
        progress(self.name)
        self._both.wait(2)


def test_a_first_start_prepares_its_stages_at_once(monkeypatch):
    both, said = threading.Barrier(2), []
    for name in ("attenuation", "guidance"):
        monkeypatch.setitem(STAGES, name, lambda _, name=name: Meeting(name, both))
    chain = Chain(("attenuation", "guidance"))
    chain.prepare(None, None, said.append, at_once=True)
    assert sorted(said) == ["attenuation", "guidance"]
    # Beside a frame path it is one after the other, on one thread: here the first waits for the second in vain.
    with pytest.raises(threading.BrokenBarrierError):
        chain.prepare(None, None, said.append)


def test_what_fails_in_one_of_them_is_raised(monkeypatch):
    class Failing(Meeting):
        def prepare(self, case, camera, progress) -> None:
            raise ValueError("no such model")

    both = threading.Barrier(1)
    monkeypatch.setitem(STAGES, "attenuation", lambda _: Meeting("attenuation", both))
    monkeypatch.setitem(STAGES, "guidance", lambda _: Failing("guidance", both))
    with pytest.raises(ValueError, match="no such model"):
        Chain(("attenuation", "guidance")).prepare(None, None, lambda _: None, at_once=True)


def test_beside_a_frame_path_nothing_is_begun_after_one_that_fails(monkeypatch):
    """Regression: the rest was still prepared, for nothing, before it was said."""

    class Failing(Meeting):
        def prepare(self, case, camera, progress) -> None:
            raise ValueError("no such model")

    both, said = threading.Barrier(1), []
    monkeypatch.setitem(STAGES, "attenuation", lambda _: Failing("attenuation", both))
    monkeypatch.setitem(STAGES, "guidance", lambda _: Meeting("guidance", both))
    with pytest.raises(ValueError, match="no such model"):
        Chain(("attenuation", "guidance")).prepare(None, None, said.append)
    assert said == []


# Says which kernels Python calls that nothing has called yet when the chain is ready. It is given a detector's file.
_NOT_COMPILED = """
import sys, types
from dataclasses import replace
from pathlib import Path
from numba.core.dispatcher import Dispatcher
from fluoronav.case import load_case
from fluoronav.geometry import Camera
from fluoronav.paths import shipped
from fluoronav.stream.pipeline.chain import STAGES, Chain

def all_code(code):
    yield code
    for inner in code.co_consts:
        if isinstance(inner, types.CodeType):
            yield from all_code(inner)

chain = Chain(tuple(STAGES))
camera = replace(Camera.load(shipped("calibration/demo-carm.yaml")), detector=Path(sys.argv[1]))
chain.prepare(load_case("embedded"), camera, lambda _: None)
chain.close()
called = {}
for module in [m for name, m in sys.modules.items() if name.startswith("fluoronav.")]:
    classes = [v for v in vars(module).values() if isinstance(v, type)]
    members = [getattr(m, "__func__", getattr(m, "fget", m)) for c in classes for m in vars(c).values()]
    for f in [f for f in [*vars(module).values(), *members] if isinstance(f, types.FunctionType)]:
        names = {name for code in all_code(f.__code__) for name in code.co_names}
        kernels = [k for name in names if isinstance(k := f.__globals__.get(name), Dispatcher)]
        called |= {f"{k.py_func.__module__}.{k.py_func.__name__}": k for k in kernels}
assert len(called) > 20
print(*sorted(name for name, kernel in called.items() if not kernel.signatures))
"""


def test_no_kernel_is_left_to_the_first_frame_that_needs_it(camera, tmp_path):
    """Regression: on a new computer the first frame with two lines in it took 110 ms, and two frames were dropped."""
    shape = (camera.rows, camera.cols)
    calibration = DetectorCalibration(np.zeros(shape, np.float32), np.ones(shape, np.float32), np.zeros(shape, bool))
    calibration.save(tmp_path / "detector.npz")
    # A process of its own: in this one, other tests have called most of them.
    said = subprocess.run(
        [sys.executable, "-c", _NOT_COMPILED, str(tmp_path / "detector.npz")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert said.returncode == 0, said.stderr
    assert said.stdout.split() == []


class Noting:
    """A stage that does nothing but note on which thread it was asked to."""

    engine = "none"

    def __init__(self, name: str, calls: list) -> None:
        self.name, self.calls = name, calls

    def process(self, frame, budget) -> None:
        self.calls.append((self.name, threading.current_thread().name))
        self.meet(frame)

    def meet(self, frame) -> None: ...

    def close(self) -> None: ...


class Registering(Noting, RegistrationStage):
    latest = None


class Detecting(Noting, DetectionStage): ...


def noting_chain(monkeypatch, pose):
    calls = []
    stages = [Registering("registration", calls), Detecting("detection", calls), Noting("guidance", calls)]
    stages[0].latest = pose
    for stage in stages:
        monkeypatch.setitem(STAGES, stage.name, lambda _, stage=stage: stage)
    return Chain(tuple(s.name for s in stages)), stages, calls


def blank():
    return FrameRecord.of_counts(np.zeros((4, 4), np.uint16), seq=1)


def test_the_detection_runs_beside_the_registration_and_the_rest_after_both(monkeypatch):
    chain, (registration, detection, _), calls = noting_chain(monkeypatch, "a pose")
    both = threading.Barrier(2)
    registration.meet = detection.meet = lambda frame: both.wait(2)  # one after the other they would wait in vain
    took = chain.process(blank(), Budget(1e6))
    assert chain.failures == 0
    assert sorted(calls[:2]) == [("detection", "beside_0"), ("registration", "MainThread")]
    assert calls[2:] == [("guidance", "MainThread")]
    assert min(took["registration"], took["detection"]) > 0
    chain.close()


def test_while_the_patient_is_searched_for_stages_run_one_after_the_other(monkeypatch):
    chain, _, calls = noting_chain(monkeypatch, None)
    chain.process(blank(), Budget(1e6))
    assert calls == [(name, "MainThread") for name in ("registration", "detection", "guidance")]
    chain.close()


def test_in_another_order_each_runs_once_and_alone(monkeypatch):
    chain, _, calls = noting_chain(monkeypatch, "a pose")
    other = Chain(("detection", "registration", "guidance"))
    other.process(blank(), Budget(1e6))
    assert calls == [(name, "MainThread") for name in ("detection", "registration", "guidance")]
    chain.close()
    other.close()


def test_what_fails_beside_another_costs_its_own_results_only(monkeypatch):
    chain, (_, detection, _), calls = noting_chain(monkeypatch, "a pose")

    def fail(frame) -> None:
        raise ValueError("no such line")

    detection.meet = fail
    for _ in range(2):
        chain.process(blank(), Budget(1e6))
    assert chain.failures == 2 and "detection: ValueError: no such line" in chain.last_failure
    assert [name for name, _ in calls].count("guidance") == 2
    chain.close()
