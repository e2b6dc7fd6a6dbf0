"""The error that every reader of recordings raises."""


class RecordingError(ValueError):
    """A file is not a recording, or is damaged; the text names the file."""
