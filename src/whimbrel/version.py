"""The version of this package; in a module of its own, for `whimbrel` itself offers `Agent` and so knows the agent."""

__version__ = "0.1.0"
