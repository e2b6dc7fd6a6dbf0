"""How the stages of a chain are prepared."""

import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from fluoronav.imaging.xray.detector import DetectorCalibration
from fluoronav.site.launch import LaunchError
from fluoronav.stream.frame import Budget, FrameRecord
from fluoronav.stream.pipeline.chain import Chain, steps_of
from fluoronav.stream.pipeline.stages import STAGES, check_order, make_stages


class Meeting:
    """A stage whose preparation ends when another's has begun, too."""

    engine = "none"
    reads = writes = frozenset()

    def __init__(self, name: str, both: threading.Barrier) -> None:
        self.name, self._both = name, both

    def prepare(self, case, camera, progress) -> None:
        progress(self.name)
        self._both.wait(2)


def test_a_first_start_prepares_its_stages_at_once():
    both, said = threading.Barrier(2), []
    chain = Chain([Meeting(name, both) for name in ("attenuation", "guidance")])
    chain.prepare(None, None, said.append, at_once=True)
    assert sorted(said) == ["attenuation", "guidance"]
    # Beside a frame path it is one after the other, on one thread: here the first waits for the second in vain.
    with pytest.raises(threading.BrokenBarrierError):
        chain.prepare(None, None, said.append)


def test_what_fails_in_one_of_them_is_raised():
    class Failing(Meeting):
        def prepare(self, case, camera, progress) -> None:
            raise ValueError("no such model")

    both = threading.Barrier(1)
    with pytest.raises(ValueError, match="no such model"):
        Chain([Meeting("attenuation", both), Failing("guidance", both)]).prepare(
            None, None, lambda _: None, at_once=True
        )


def test_beside_a_frame_path_nothing_is_begun_after_one_that_fails():
    """Regression: the rest was still prepared, for nothing, before it was said."""

    class Failing(Meeting):
        def prepare(self, case, camera, progress) -> None:
            raise ValueError("no such model")

    both, said = threading.Barrier(1), []
    with pytest.raises(ValueError, match="no such model"):
        Chain([Failing("attenuation", both), Meeting("guidance", both)]).prepare(None, None, said.append)
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
from fluoronav.stream.pipeline.chain import Chain
from fluoronav.stream.pipeline.stages import STAGES, make_stages

def all_code(code):
    yield code
    for inner in code.co_consts:
        if isinstance(inner, types.CodeType):
            yield from all_code(inner)

chain = Chain(make_stages(tuple(STAGES)))
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

    def __init__(self, name: str, calls: list, reads=(), writes=()) -> None:
        self.name, self.calls = name, calls
        self.reads, self.writes = frozenset(reads), frozenset(writes)

    def process(self, frame, budget) -> None:
        self.calls.append((self.name, threading.current_thread().name))
        self.meet(frame)

    def meet(self, frame) -> None: ...

    def close(self) -> None: ...


class NotingChain:
    """Stages that note, with the declarations of registration, detection and guidance."""

    def __init__(self, names=("registration", "detection", "guidance")):
        self.calls = []
        declared = {
            "registration": ({"pyramid"}, {"status", "registration"}),
            "detection": ({"pyramid"}, {"detections"}),
            "guidance": ({"registration", "detections"}, {"alerts"}),
        }
        self.stages = [Noting(name, self.calls, *declared[name]) for name in names]
        self.chain = Chain(self.stages)


@pytest.fixture
def noting():
    noting = NotingChain()
    yield noting
    noting.chain.close()


def blank():
    return FrameRecord.of_counts(np.zeros((4, 4), np.uint16), seq=1)


def test_stages_with_disjoint_fields_run_side_by_side_and_the_rest_after_both(noting):
    registration, detection, _ = noting.stages
    both = threading.Barrier(2)
    registration.meet = detection.meet = lambda frame: both.wait(2)  # one after the other they would wait in vain
    took = noting.chain.process(blank(), Budget(1e6))
    assert noting.chain.failures == 0
    assert sorted(noting.calls[:2]) == [("detection", "beside_0"), ("registration", "MainThread")]
    assert noting.calls[2:] == [("guidance", "MainThread")]
    assert min(took["registration"], took["detection"]) > 0


@pytest.mark.parametrize(
    "one, other",
    [
        (({"a"}, {"b"}), ({"b"}, {"c"})),  # the second reads what the first writes
        (({"c"}, {"b"}), ({"a"}, {"c"})),  # the first reads what the second writes
        (({"a"}, {"b"}), ({"a"}, {"b"})),  # both write one field
        (({"a"}, {"b"}), ({"a"}, set())),  # the second has no work on the frame path
    ],
)
def test_stages_that_share_a_field_run_one_after_the_other(one, other):
    stages = [Noting("one", [], *one), Noting("other", [], *other)]
    assert steps_of(stages) == [(stages[0], None), (stages[1], None)]


def test_no_more_than_two_stages_run_side_by_side():
    stages = [Noting(name, [], (), {name}) for name in "abc"]
    assert steps_of(stages) == [(stages[0], stages[1]), (stages[2], None)]


def test_of_the_shipped_stages_registration_and_detection_run_side_by_side():
    stages = make_stages(tuple(STAGES))
    pairs = [(one.name, other.name) for one, other in steps_of(stages) if other is not None]
    for stage in stages:
        stage.close()
    assert pairs == [("registration", "detection")]


def test_what_fails_beside_another_costs_its_own_results_only(noting):
    chain = noting.chain

    def fail(frame) -> None:
        raise ValueError("no such line")

    noting.stages[1].meet = fail
    for _ in range(2):
        chain.process(blank(), Budget(1e6))
    assert chain.failures == 2 and "detection: ValueError: no such line" in chain.last_failure
    assert [name for name, _ in noting.calls].count("guidance") == 2


def test_what_fails_between_frames_is_counted_and_ends_nothing(noting, monkeypatch):
    def fail(frame, budget) -> None:
        raise ValueError("no such view")

    for stage, idle in zip(noting.stages, (fail, lambda *_: None, lambda *_: None), strict=True):
        monkeypatch.setattr(stage, "idle", idle, raising=False)
    frame = blank()
    noting.chain.process(frame, Budget(1e6))
    noting.chain.idle(frame, Budget(1e6))
    assert noting.chain.failures == 1 and noting.chain.last_failure == "registration: ValueError: no such view"
    assert [name for name, _ in noting.calls].count("guidance") == 1


def test_a_stage_that_has_failed_leaves_what_it_declares_for_that_case(noting):
    def fail(frame) -> None:
        frame.status, frame.registration = "tracking", "half a pose"
        raise ValueError("singular")

    registration = noting.stages[0]
    registration.meet, registration.on_failure = fail, {"status": "lost", "registration": None}
    frame = blank()
    noting.chain.process(frame, Budget(1e6))
    assert frame.status == "lost" and frame.registration is None


def test_a_frame_is_told_the_status_of_the_one_before(noting):
    said = []
    registration, detection, _ = noting.stages
    registration.meet = lambda frame: setattr(frame, "status", "tracking")
    detection.meet = lambda frame: said.append(frame.last_status)
    for _ in range(2):
        noting.chain.process(blank(), Budget(1e6))
    assert said == ["no_model", "tracking"]


@pytest.mark.parametrize(
    "names, said",
    [
        (
            ["registration", "attenuation"],
            "reads what 'attenuation' writes (anatomy_mask): put 'attenuation'",
        ),
        (["registration"], "put 'attenuation' before it"),
        (["attenuation", "guidance", "registration"], "'guidance' reads what 'registration' writes"),
        (["attenuation", "registration", "instruments", "detection"], "'instruments' reads what 'detection' writes"),
    ],
)
def test_a_stage_before_what_it_reads_is_refused_by_file_and_field(names, said):
    with pytest.raises(LaunchError) as caught:
        check_order(names, Path("launch.yaml"))
    assert str(caught.value).startswith("launch.yaml: stages: ") and said in str(caught.value)


def test_a_launch_file_may_leave_stages_out():
    for names in (["attenuation"], ["attenuation", "registration", "guidance"], list(STAGES)):
        check_order(names, Path("launch.yaml"))
