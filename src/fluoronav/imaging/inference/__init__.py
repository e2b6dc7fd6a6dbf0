"""Neural networks in files: verified by hash, loaded once, run without allocation."""

from fluoronav.imaging.inference.manifest import MissingError, ModelError, engine
from fluoronav.imaging.inference.model import Model
from fluoronav.imaging.inference.settings import InferenceSettings

__all__ = ["InferenceSettings", "MissingError", "Model", "ModelError", "engine"]
