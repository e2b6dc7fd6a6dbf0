"""Pedicle screws: the vertebra's own anatomy, screws proposed, screws graded, screws drawn."""
