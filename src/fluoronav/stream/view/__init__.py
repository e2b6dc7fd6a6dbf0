"""The picture for the display: denoised, and windowed inside the field of view."""
