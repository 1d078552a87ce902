"""The rollout of a model's first version, by what its card says. Used by `whimbrel publish`."""

import msgspec

from whimbrel.cli.connect import Client
from whimbrel.flows.accounts.permissions import Permission
from whimbrel.flows.files.card import CardRollout
from whimbrel.model.documents import encode
from whimbrel.plan.plan import PlanFile
from whimbrel.server.admin.views.accounts import CallerView
from whimbrel.server.admin.views.rollouts import RolloutView
from whimbrel.server.admin.views.versions import PublishedVersion


def is_held(rollout: CardRollout | None, *, hold: bool) -> bool:
    """Whether a first version waits for a rollout: a person says so, or its card is for some devices only."""
    return hold or (rollout is not None and not rollout.everyone)


def begin_first_rollout(client: Client, rollout: CardRollout, version: PublishedVersion) -> RolloutView:
    """Start the card's rollout of a version that was published and held; a draft where nothing else is allowed."""
    caller = client.get("caller", as_=CallerView)
    plan = PlanFile(rollout=rollout.plan(f"{version.model}@{version.version}"))
    body = {
        "plan": encode(msgspec.to_builtins(plan)).decode(),
        "file_name": "the card's rollout",
        "draft": Permission.RELEASE not in caller.permissions,
    }
    return client.send("POST", "rollouts", body, as_=RolloutView)
