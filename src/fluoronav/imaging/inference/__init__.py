"""Neural networks as files: verified, loaded once, run without allocating."""

from fluoronav.imaging.inference.manifest import ModelError, engine
from fluoronav.imaging.inference.model import Model
from fluoronav.imaging.inference.settings import InferenceSettings

__all__ = ["InferenceSettings", "Model", "ModelError", "engine"]
