"""Faults that a tired or hostile hospital produces, put into real processes, and whether what is said stays true."""
