"""The session on disk: whole, private, of this launch file, and never one that no longer holds."""

import errno
import os
import time

import pytest

from fluoronav.stream.frame import Alert
from fluoronav.stream.pipeline import session as module
from fluoronav.stream.pipeline.session import Accepted, Mark, Session, SessionError, SessionFile

ALERT = Alert("proximity/kwire/aorta/1", 5, "raised", "high", "proximity", "kwire", "aorta", 1.0, 0.5, 3.0, "near")


def session(**change):
    kept = Session(
        launch="/or/launch.yaml", case_name="second", case="second@1", mode="live", plan=("T8_left",),
        confirmed=Mark(user="Dr. Müller", t=1), alerts=(ALERT,), written=time.time_ns(),
        accepted=Accepted(user="Dr. Müller", t=2, T_camera_ct=tuple(float(k) for k in range(16))),
    )  # fmt: skip
    return kept.model_copy(update=change)


@pytest.fixture
def file(tmp_path):
    return SessionFile(tmp_path / "audit", "carm0")


def test_what_was_written_is_read_by_its_launch_file_alone(file):
    assert file.read("/or/launch.yaml") is None
    file.write(session())
    assert file.read("/or/launch.yaml") == session(written=file.read("/or/launch.yaml").written)
    assert file.read("/another/launch.yaml") is None
    assert file.path.stat().st_mode & 0o077 == 0 and file.path.parent.stat().st_mode & 0o077 == 0
    assert [p.name for p in file.path.parent.iterdir()] == ["session-carm0.json"]
    file.remove()
    file.remove()
    assert file.read("/or/launch.yaml") is None


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\x00", b"[" * 100_000, b"x" * 2**21, b'{"launch": 1}'])
def test_a_file_that_is_none_is_refused_by_name(file, content):
    file.write(session())
    file.path.write_bytes(content)
    with pytest.raises(SessionError, match="session-carm0.json: cannot be read"):
        file.read("/or/launch.yaml")


@pytest.mark.parametrize("hours", [12.1, 24 * 365, -1])
def test_an_old_one_or_one_of_the_future_is_refused(file, hours):
    file.write(session(written=time.time_ns() - round(hours * 3.6e12)))
    with pytest.raises(SessionError, match="hours old"):
        file.read("/or/launch.yaml")


def test_a_disk_that_takes_no_second_file_still_takes_what_has_changed(file, monkeypatch):
    file.write(session())
    whole = module._written

    def full(path, content):
        if path.suffix == ".new":
            path.write_bytes(content[:100])
            raise OSError(errno.ENOSPC, "No space left on device")
        whole(path, content)

    monkeypatch.setattr(module, "_written", full)
    file.write(session(mode="shadow", accepted=None))
    found = file.read("/or/launch.yaml")
    assert found.mode == "shadow" and found.accepted is None
    assert [p.name for p in file.path.parent.iterdir()] == ["session-carm0.json"]


def test_what_cannot_be_kept_at_all_is_not_left_as_it_was(file, monkeypatch):
    file.write(session())

    def refused(*_):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(module, "_written", refused)
    with pytest.raises(SessionError, match="cannot be kept"):
        file.write(session(mode="shadow"))
    assert file.read("/or/launch.yaml") is None
