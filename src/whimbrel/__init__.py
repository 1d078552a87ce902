"""Whimbrel: over-the-air versioning of machine-learning models for device fleets."""

__version__ = "0.1.0"
