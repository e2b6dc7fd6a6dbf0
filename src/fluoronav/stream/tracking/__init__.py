"""Instruments in the patient: from the external tracker, from images, and from both together."""
