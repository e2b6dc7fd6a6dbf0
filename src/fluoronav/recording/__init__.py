"""Recordings of what was received and sent: written, read, and replayed."""

from fluoronav.recording.error import RecordingError
from fluoronav.recording.file import read_recording
from fluoronav.recording.recorder import Recorder
from fluoronav.recording.replay import Replay

__all__ = ["Recorder", "RecordingError", "Replay", "read_recording"]
