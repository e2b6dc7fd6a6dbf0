"""Live fluoroscopy in, surgical guidance out, inside one frame period."""

__version__ = "0.1.0"
