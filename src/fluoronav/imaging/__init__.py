"""Arithmetic on images: no clock, no thread of its own, no process."""
