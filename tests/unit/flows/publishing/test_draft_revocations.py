"""What was taken back and is forbidden by the policy alone is a draft for the publisher's key."""

from support.values import T0, line, selector, town
from whimbrel.flows.publishing.draft_revocations import DraftRevocation, draft_revocations
from whimbrel.flows.quarantine import quarantine
from whimbrel.flows.rollouts.roll_back_model import roll_back_model


def test_what_every_device_refuses_is_a_draft_until_the_line_forbids_it() -> None:
    with town(versions=3) as here:
        quarantine(here.registry, "wake", 2, because="it crashes", now=T0)
        version = here.registry.version("wake", 2)
        draft = DraftRevocation(
            model="wake",
            serial=2,
            version=version.version,
            semantic_version=version.semantic_version,
            because="it crashes",
            at=T0,
        )
        assert draft_revocations(here.registry, "wake", line=line()) == [draft]
        assert draft_revocations(here.registry, "wake", line=line(revoked=(2,))) == []
        assert draft_revocations(here.registry, "wake", line=line(minimum_serial=3)) == []


def test_what_a_part_of_the_fleet_refuses_is_no_draft() -> None:
    with town() as here:
        quarantine(here.registry, "wake", 2, because="slow", now=T0, selector=selector(hardware="pi3"))
        assert draft_revocations(here.registry, "wake", line=line()) == []


def test_what_a_model_passes_over_on_its_way_back_is_no_draft() -> None:
    """It was good; a signed revocation could not be undone."""
    with town(versions=3) as here:
        for serial in (1, 2, 3):
            here.registry.change_version("wake", serial, good=True)
        here.registry.change_model("wake", baseline=3)
        roll_back_model(here.registry, "wake", lines=lambda _: line(), to=1, because="it stutters", actor="ada", now=T0)
        assert {entry.serial for entry in here.registry.quarantines("wake")} == {2, 3}
        assert [each.serial for each in draft_revocations(here.registry, "wake", line=line())] == [3]
