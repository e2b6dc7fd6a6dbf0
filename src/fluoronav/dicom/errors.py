"""Why a DICOM object cannot be used."""


class DicomError(ValueError):
    """A DICOM object that cannot be used; the text names the file, what is wrong and what to do."""
