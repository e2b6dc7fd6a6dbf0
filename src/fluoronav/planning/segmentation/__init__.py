"""Segmentation of a CT: engines behind one interface, and what they return."""
