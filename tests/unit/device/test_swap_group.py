"""Who changes at one moment, and who is waited for."""

from typing import Any

from whimbrel.device.conditions import Wait
from whimbrel.device.swap_group import Standing, swap_group
from whimbrel.model.release import Requirement


def needs(model: str, serial: int) -> tuple[Requirement, ...]:
    return (Requirement(model=model, serial=serial),)


def changing(*, ready: bool = True, **changes: Any) -> Standing:
    """A model on its way from serial 1 to serial 2."""
    return Standing(**{"active": 1, "ready": 2 if ready else None, "changes_to": 2, **changes})


def group(name: str, *, unread: bool = True, **models: Standing) -> tuple[str, ...] | Wait:
    return swap_group(name, models, waits_for_unread=unread)


LEAD = changing(next_requires=needs("decoder", 2))
LEAD_NOT_READY = changing(ready=False, next_requires=needs("decoder", 2))


def test_models_that_have_nothing_to_do_with_each_other_change_alone() -> None:
    assert group("encoder", encoder=changing(), decoder=changing(ready=False)) == ("encoder",)


def test_a_lead_and_its_member_change_together_whoever_asks() -> None:
    assert group("encoder", encoder=LEAD, decoder=changing()) == ("encoder", "decoder")
    assert group("decoder", encoder=LEAD, decoder=changing()) == ("decoder", "encoder")


def test_a_member_waits_for_the_lead_that_comes_and_says_what_it_waits_for() -> None:
    lead = changing(ready=False, next_requires=needs("decoder", 2), waits_for="the charger")
    assert group("decoder", encoder=lead, decoder=changing()) == Wait(
        "encoder to be ready at serial 2: both change together; encoder waits for the charger"
    )
    assert isinstance(group("decoder", encoder=lead, decoder=changing(active=None)), Wait)


def test_a_lead_waits_for_its_member_that_is_not_ready_or_ready_at_another_serial() -> None:
    because = Wait("decoder to be ready at serial 2: both change together")
    assert group("encoder", encoder=LEAD, decoder=changing(ready=False)) == because
    assert group("encoder", encoder=LEAD, decoder=changing(ready=False, changes_to=3)) == because
    assert group("encoder", encoder=LEAD) == Wait("decoder at serial 2, which serial 2 requires")


def test_a_requirement_that_runs_already_is_met() -> None:
    assert group("encoder", encoder=LEAD, decoder=Standing(active=2)) == ("encoder",)


def test_a_lead_that_stays_or_wants_another_serial_holds_nobody() -> None:
    stays = Standing(active=1, next_requires=())
    assert group("decoder", encoder=stays, decoder=changing()) == ("decoder",)
    other = changing(ready=False, next_requires=needs("decoder", 3))
    assert group("decoder", encoder=other, decoder=changing()) == ("decoder",)


def test_a_chain_changes_as_one() -> None:
    """The last of three was swapped after the first two: only the own requirements of one model were looked at."""
    models = {"a": changing(next_requires=needs("b", 2)), "b": changing(next_requires=needs("c", 2)), "c": changing()}
    for name in models:
        found = group(name, **models)
        assert isinstance(found, tuple)
        assert (found[0], set(found)) == (name, {"a", "b", "c"})
    for late, standing in models.items():
        held = {**models, late: changing(ready=False, next_requires=standing.next_requires)}
        assert all(isinstance(group(name, **held), Wait) for name in models if name != late)


def test_what_belongs_together_leaves_together() -> None:
    """On the way back nothing requires anything: what is left does."""
    lead, member = changing(active_requires=needs("decoder", 1)), changing()
    assert group("encoder", encoder=lead, decoder=member) == ("encoder", "decoder")
    assert group("decoder", encoder=lead, decoder=member) == ("decoder", "encoder")
    assert isinstance(group("encoder", encoder=lead, decoder=changing(ready=False)), Wait)
    lead_not_ready = changing(ready=False, active_requires=needs("decoder", 1))
    assert isinstance(group("decoder", encoder=lead_not_ready, decoder=member), Wait)


def test_a_member_that_failed_and_runs_nothing_waits_for_the_lead_that_must_leave_too() -> None:
    """A fresh device on which the decoder crashed ran the old decoder beside the new encoder until its next cycle."""
    lead = Standing(active=2, changes_to=1, active_requires=needs("decoder", 2))
    member = Standing(ready=1, changes_to=1)
    assert isinstance(group("decoder", encoder=lead, decoder=member), Wait)


def test_a_requirement_that_was_broken_before_holds_nobody() -> None:
    mixed = changing(ready=False, active_requires=needs("decoder", 7))
    assert group("decoder", encoder=mixed, decoder=changing()) == ("decoder",)


def test_a_version_that_may_run_no_longer_waits_for_nobody_that_requires_it() -> None:
    revoked = changing(must_leave=True)
    assert group("decoder", encoder=LEAD_NOT_READY, decoder=revoked) == ("decoder",)
    assert group("decoder", encoder=LEAD, decoder=revoked) == ("decoder", "encoder")
    needy = changing(must_leave=True, next_requires=needs("decoder", 2))
    assert isinstance(group("encoder", encoder=needy, decoder=changing(ready=False)), Wait)


def test_a_release_that_cannot_be_read_may_require_this_one() -> None:
    unread = changing(ready=False, next_requires=None)
    assert group("decoder", encoder=unread, decoder=changing()) == Wait(
        "the release of encoder at serial 2, which may belong to a set with this one"
    )
    assert group("decoder", unread=False, encoder=unread, decoder=changing()) == ("decoder",)
    assert group("decoder", encoder=unread, decoder=changing(must_leave=True)) == ("decoder",)
