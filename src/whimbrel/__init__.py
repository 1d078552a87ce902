"""Whimbrel: over-the-air versioning of machine-learning models for device fleets."""

from typing import TYPE_CHECKING, Any

from whimbrel.version import __version__

if TYPE_CHECKING:
    from whimbrel.agent.app import Agent as Agent

__all__ = ["Agent", "__version__"]


def __getattr__(name: str) -> Any:
    if name == "Agent":  # imported on first use: the server and the tools need neither urllib3 nor tuf
        from whimbrel.agent.app import Agent

        return Agent
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
