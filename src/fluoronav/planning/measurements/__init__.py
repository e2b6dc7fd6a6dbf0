"""Automatic measurements on label maps, each with its method, uncertainty and points to draw, and flags."""
