"""A client that asks the server what to run follows the models that it names."""

from support.values import T0, Town, town
from whimbrel.flows.reports.take_check import take_check
from whimbrel.policy.policy import PERIOD_S, Policy
from whimbrel.trust.enrolment import Check

WAKE = Policy(model="wake", sequence=1, baseline=1, hardware_label="chip")


def ask(here: Town, models: dict[str, int | None], *, at: float = T0) -> None:
    policies = {name: WAKE if name == "wake" else None for name in models}
    take_check(here.fleet, Check(models=models, labels={"chip": "m7"}), policies, device_id="thin", now=at)


def test_a_check_says_what_is_followed_and_run() -> None:
    with town() as here:
        here.enrol("thin")
        ask(here, {"wake": None, "no such": 7})
        assert (here.fleet.inventory("wake"), here.fleet.inventory("no such")) == ({None: 1}, {})
        ask(here, {"wake": 1})
        assert (here.fleet.inventory("wake"), here.fleet.classes("wake")) == ({1: 1}, {"m7": 1})


def test_a_check_drops_nothing() -> None:
    with town() as here:
        here.enrol("thin", models=("wake", "sleep"))
        ask(here, {"wake": 1})
        assert set(here.fleet.running_of("thin")) == {"wake", "sleep"}


def test_what_is_known_is_written_again_only_when_it_is_old() -> None:
    with town() as here:
        here.enrol("thin")
        for at in (T0, T0 + PERIOD_S - 1):
            ask(here, {"wake": 1}, at=at)
        assert here.fleet.running_of("thin")["wake"].at == T0
        ask(here, {"wake": 1}, at=T0 + PERIOD_S)
        assert here.fleet.running_of("thin")["wake"].at == T0 + PERIOD_S
