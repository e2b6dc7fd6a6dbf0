"""Neural networks as files: verified, loaded once, run without allocating."""

from fluoronav.inference.manifest import ModelError, engine
from fluoronav.inference.model import Model
from fluoronav.inference.settings import InferenceSettings

__all__ = ["InferenceSettings", "Model", "ModelError", "engine"]
