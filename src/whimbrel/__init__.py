"""Whimbrel: over-the-air versioning of machine-learning models for device fleets."""

import importlib
from typing import TYPE_CHECKING, Any

from whimbrel.version import __version__

if TYPE_CHECKING:
    from whimbrel.agent.app import Agent as Agent
    from whimbrel.agent.options import AgentOptions as AgentOptions

__all__ = ["Agent", "AgentOptions", "__version__"]

_HOME = {"Agent": "whimbrel.agent.app", "AgentOptions": "whimbrel.agent.options"}


def __getattr__(name: str) -> Any:
    if name in _HOME:  # imported on first use: the server and the tools need neither urllib3 nor tuf
        return getattr(importlib.import_module(_HOME[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
