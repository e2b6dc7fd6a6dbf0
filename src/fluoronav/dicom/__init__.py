"""DICOM objects as files; no network."""
