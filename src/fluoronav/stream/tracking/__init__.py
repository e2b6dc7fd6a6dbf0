"""Instruments in space: from the external tracker, from pictures, and from both together."""
