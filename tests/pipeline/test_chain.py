"""How the stages of a chain are prepared."""

import threading

import pytest

from fluoronav.pipeline.chain import STAGES, Chain


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
