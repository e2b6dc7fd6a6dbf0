"""What came and what was said, kept in a file."""

from fluoronav.recording.file import RecordingError, read_recording
from fluoronav.recording.recorder import Recorder
from fluoronav.recording.replay import Replay

__all__ = ["Recorder", "RecordingError", "Replay", "read_recording"]
