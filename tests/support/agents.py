"""Real agents on a `repository.Server`: what their tests share."""

from typing import Any

from support.repository import Server
from whimbrel import Agent, AgentOptions, limits
from whimbrel.device.ports import ProbeRequest, ProbeResult


class AllGood:
    """Every probe passes: probes are not what is tested."""

    def probe(self, request: ProbeRequest) -> ProbeResult:
        return ProbeResult(passed=True)


def options_of(of: Server, **changes: Any) -> AgentOptions:
    """With what a device of that server is opened first. It follows `detector`, and tells how it is doing."""
    given: dict[str, Any] = {
        "server": of.url,
        "root": of.repository.root_bytes,
        "models": ["detector"],
        "device_id": "dev-1",
        "probes": AllGood(),
        "enrol_token": of.enrol_token,
    }
    return AgentOptions(**(given | changes))


def settled(agent: Agent, model: str = "detector") -> None:
    """Take what is decided, try it, and commit it."""
    agent.cycle(force=True)
    for _ in range(limits.TRIAL_HEALTHY_SESSIONS):
        with agent.session(model):
            pass
    assert agent.cycle(force=True).models[model]["state"] == "committed"
