"""The import engine: segmentations that other programs or people made, checked against the CT."""
