"""Instruments as the picture shows them."""
