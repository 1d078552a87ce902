"""What people ask of flows in tests: begin a rollout, move it, make enrolment tokens; and how a refusal reads."""

from typing import Any

import pytest

from support.values import HOUR, T0, Town, plan
from whimbrel.flows.devices.enrol_tokens import create_tokens
from whimbrel.flows.devices.records import EnrolTokenTerms
from whimbrel.flows.records import RolloutRecord
from whimbrel.flows.rollouts.move import PersonMove, move_by_person
from whimbrel.flows.rollouts.start import start_rollout
from whimbrel.plan.plan import Plan

SECRET = "t" * 32


def start(here: Town, said: Plan | None = None, **changes: Any) -> RolloutRecord:
    values = {"plan_text": "", "tag": "abcdef", "hour_s": HOUR, "actor": "me", "now": T0} | changes
    return start_rollout(here.registry, here.fleet, said or plan(), **values)


def by_person(here: Town, wanted: PersonMove, *, now: float = T0 + 9, **more: Any) -> RolloutRecord:
    values = {"because": "", "actor": "ada", "now": now} | more
    return move_by_person(here.registry, here.fleet, "r1", wanted, **values)


def refusal(kind: type[Exception], what: Any, *arguments: Any, **more: Any) -> str:
    with pytest.raises(kind) as refused:
        what(*arguments, **more)
    assert type(refused.value) is kind
    return str(refused.value)


def tokens(here: Town, *secrets: str, name: str = "lot", because: str = "a lot", **terms: Any) -> None:
    create_tokens(
        here.stores.enrolments,
        here.registry,
        name,
        secrets or (SECRET,),
        terms=EnrolTokenTerms(**terms),
        because=because,
        actor="ana",
        now=T0,
    )
