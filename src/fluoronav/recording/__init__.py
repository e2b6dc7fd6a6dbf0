"""What came and what was said, kept in a file."""

from fluoronav.recording.file import RecordingError, read_recording
from fluoronav.recording.recorder import Recorder

__all__ = ["Recorder", "RecordingError", "read_recording"]
