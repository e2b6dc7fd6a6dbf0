"""Watertight surfaces of masks, and of files that people bring; mm."""
