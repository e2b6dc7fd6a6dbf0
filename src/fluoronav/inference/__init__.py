"""Neural networks as files: verified, loaded once, run without allocating."""

from fluoronav.inference.session import Model, ModelError

__all__ = ["Model", "ModelError"]
