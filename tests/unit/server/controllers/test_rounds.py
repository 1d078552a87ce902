"""A round: what devices told is counted and judged, and what follows is signed. What fails stops nothing beside it."""

import asyncio
import logging
from collections.abc import Callable, Coroutine

import pytest
from sqlalchemy import update

from support.rollouts_in_memory import audited, cells, enrolled, policy, rollout, running, send, start
from support.server_in_memory import ServerInMemory
from support.values import announce, cohort, devices_in, reports, stage, window
from whimbrel.errors import InvariantBroken, Unavailable, UntrustedInput
from whimbrel.flows.ports import Taken
from whimbrel.flows.rollouts.move import move_by_person
from whimbrel.plan.rollout_states import State
from whimbrel.server import controllers
from whimbrel.server.controllers.leader import LeadLost
from whimbrel.stores import schema
from whimbrel.stores.registry import take_lease

TREATED, CONTROL = devices_in(0, 50_000, 16), devices_in(100_000, 1_000_000, 16)
DEVICES = TREATED[0], CONTROL[0]
CRASHES = {"stages": (stage(), stage("general", 100, hours=0)), "min_devices": 2}


def crash(server: ServerInMemory, identifier: str, *, model: str = "wake") -> None:
    """Every treated device crashes and no control device does. It is counted, and its window is over."""
    told = []
    for role, devices, crashed, serial in (("treated", TREATED, 1, 2), ("control", CONTROL, 0, 1)):
        step = "activated" if role == "treated" else "placebo"
        for each in devices:
            named = {"rollout": identifier, "role": role, "model": model, "serial": serial}
            told.append(announce(each, step, at=server.clock.now, **named))
            counted = (cohort(role, rollout=identifier),)
            one = window(1, serial=serial, model=model, cohorts=counted, crashed=crashed)
            epoch = "0123456789abcdef" if model == "wake" else "f" * 16
            told.append(reports(each, one, at=server.clock.now + 1, epoch=epoch))
    send(server, told)
    server.run(server.controllers.tallying.empty_inbox())
    server.clock.now += rollout(server, identifier).window_s


def test_a_rollout_begins_in_one_round(server: ServerInMemory) -> None:
    enrolled(server, *DEVICES)
    identifier = start(server)
    assert rollout(server, identifier).state is State.ADVANCING
    server.round()
    assert rollout(server, identifier).state is State.RUNNING
    (entry,) = (entry for layer in policy(server).layers for entry in layer.entries)
    assert entry.rollout == identifier


def test_a_rollout_does_not_run_before_its_policy_is_out(server: ServerInMemory) -> None:
    enrolled(server, *DEVICES)
    identifier = start(server)
    server.blobs.fails = Unavailable("the store does not answer")
    with pytest.raises(Unavailable):
        server.round()
    assert rollout(server, identifier).state is State.ADVANCING
    server.blobs.fails = None
    server.round()
    assert rollout(server, identifier).state is State.RUNNING


def test_harm_that_devices_told_takes_the_version_back_and_the_policy_says_so_in_the_same_round(
    server: ServerInMemory,
) -> None:
    enrolled(server, *TREATED, *CONTROL)
    identifier = running(server, **CRASHES)
    crash(server, identifier)
    assert sum(cell.crashed for cell in cells(server, identifier)) == 16
    server.clock.now -= 1  # the window is open yet
    server.round()
    assert rollout(server, identifier).state is not State.ROLLING_BACK
    server.clock.now += 1
    server.round()
    record = rollout(server, identifier)
    assert record.state is State.ROLLING_BACK
    assert "harm is proven: crash" in record.because
    assert [each.serial for each in policy(server).quarantine] == [2]
    (entry,) = audited(server, "roll_back")
    assert (entry.actor, entry.because) == ("gate", record.because)
    with server.stores() as stores:
        assert stores.registry.verdicts(identifier)[-1].move == "roll_back"
    server.round()
    judged = verdicts(server, identifier)
    server.clock.now += record.window_s
    server.round()
    assert verdicts(server, identifier) == judged  # it has ended
    assert server.controllers.judging._rollouts.ledgers == {}  # nothing is kept of it


def verdicts(server: ServerInMemory, identifier: str) -> list[int]:
    """The windows in which a rollout was judged."""
    with server.stores() as stores:
        return [each.window for each in stores.registry.verdicts(identifier)]


def test_a_rollout_is_judged_once_a_window(server: ServerInMemory) -> None:
    enrolled(server, *DEVICES)
    identifier = running(server)
    window_s = rollout(server, identifier).window_s
    server.round()
    assert verdicts(server, identifier) == [0]
    server.clock.now += window_s - 1
    server.round()
    assert verdicts(server, identifier) == [0]
    server.clock.now += 1
    server.round()
    server.round()
    assert verdicts(server, identifier) == [0, 1]


@pytest.mark.parametrize(("step", "judged"), [("failed", [0, 0]), ("went_back", [0, 0]), ("committed", [0])])
def test_a_device_that_failed_or_went_back_has_its_rollout_judged_at_once(
    server: ServerInMemory, step: str, judged: list[int]
) -> None:
    enrolled(server, *DEVICES)
    identifier = running(server)
    send(server, [announce(TREATED[0], step, rollout=identifier, at=server.clock.now)])
    server.round()
    assert verdicts(server, identifier) == judged


def test_another_leader_judges_once_more_and_then_once_a_window(server: ServerInMemory) -> None:
    """It does not know when its predecessor judged last."""
    enrolled(server, *DEVICES)
    identifier = running(server)
    server.controllers.leader.resign()
    other = server.new_controllers()
    for _ in range(2):
        server.run(other.round())
    assert verdicts(server, identifier) == [0, 0]


# --- who leads ---


def test_a_follower_does_nothing_and_leaves_all_to_the_leader(server: ServerInMemory) -> None:
    enrolled(server, *DEVICES)
    identifier = start(server)
    send(server, [announce(TREATED[0], "activated", rollout=identifier, at=server.clock.now)])
    other = server.new_controllers()
    server.controllers.leader.resign()
    assert other.leader.take()
    with pytest.raises(LeadLost):
        server.round()
    assert rollout(server, identifier).state is State.ADVANCING
    assert len(server.run(server.inbox.take(10)).records) == 1
    server.run(other.round())
    assert rollout(server, identifier).state is State.RUNNING


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rounds follow each other at once."""
    monkeypatch.setattr(controllers, "_PERIOD_S", 0.0005)


def run_until(server: ServerInMemory, done: Callable[[], bool]) -> None:
    """Run the controllers until something is so, and stop them in good order."""

    async def play() -> None:
        task = asyncio.create_task(server.controllers.run())
        async with asyncio.timeout(20):
            while not done() and not task.done():
                await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    server.run(play())


def roles_told(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [each.getMessage() for each in caplog.records if each.name == controllers.__name__]


@pytest.mark.usefixtures("quick")
def test_a_server_says_that_it_leads_and_hands_the_lead_over_when_it_stops(
    server: ServerInMemory, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger=controllers.__name__)
    identifier = start(server)
    run_until(server, lambda: rollout(server, identifier).state is State.RUNNING)
    assert roles_told(caplog) == ["this server leads: it tallies, judges and signs"]
    assert not server.controllers.leads_now()
    assert server.new_controllers().leader.take()


@pytest.mark.usefixtures("quick")
def test_a_server_that_follows_says_so_once_and_leads_when_it_can(
    server: ServerInMemory, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger=controllers.__name__)
    identifier = start(server)
    with server.database.transaction() as connection:
        assert take_lease(connection, "leader", holder="another", now=server.clock.now, life_s=60.0)
    looks = 0

    def led() -> bool:
        nonlocal looks
        looks += 1
        if looks == 200:
            assert rollout(server, identifier).state is State.ADVANCING
            server.clock.now += 61
        return rollout(server, identifier).state is State.RUNNING

    run_until(server, led)
    assert roles_told(caplog) == [
        "this server follows: another one leads",
        "this server leads: it tallies, judges and signs",
    ]


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    ("error", "told"),
    [
        (Unavailable("the inbox does not answer"), "a controller round failed (2 in a row): the inbox does not answer"),
        (OSError(5, "x"), "(2 in a row)"),
        (ZeroDivisionError(), "a controller round failed (2 in a row)"),
    ],
)
def test_rounds_that_fail_are_told_with_their_number_and_rounds_go_on(
    server: ServerInMemory,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    told: str,
) -> None:
    take, tries = server.inbox.take, 0

    async def sick(limit: int) -> Taken:
        nonlocal tries
        tries += 1
        if tries in {1, 2, 4}:
            raise error
        return await take(limit)

    monkeypatch.setattr(server.inbox, "take", sick)
    run_until(server, lambda: tries >= 5)
    messages = [each.getMessage() for each in caplog.records if "in a row" in each.getMessage()]
    assert ["(1 in a row)" in each for each in messages] == [True, False, True]  # a round that went well between them
    assert told in messages[1]
    assert bool(caplog.records[0].exc_info) is isinstance(error, ZeroDivisionError)


def test_rounds_come_four_times_a_second_later_after_failures_and_soon_where_something_waits(
    server: ServerInMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After many failures in a row a round comes every ten seconds, and where messages wait more of them gather."""
    waits: list[float] = []
    rounds = 0

    async def wait(waiting: Coroutine[object, object, object], timeout: float) -> None:
        waiting.close()
        waits.append(timeout)
        await asyncio.sleep(0)

    slept: list[float] = []

    async def gather(seconds: float) -> None:
        slept.append(seconds)

    async def fail() -> None:
        nonlocal rounds
        rounds += 1
        if rounds <= 45:
            raise Unavailable("the database is locked")
        server.controllers.wake.set()
        if rounds == 48:
            raise asyncio.CancelledError

    monkeypatch.setattr(server.controllers, "round", fail)
    monkeypatch.setattr(controllers.asyncio, "wait_for", wait)
    sleep = asyncio.sleep
    monkeypatch.setattr(controllers.asyncio, "sleep", lambda s: gather(s) if s else sleep(0))
    with pytest.raises(asyncio.CancelledError):
        server.run(server.controllers.run())
    assert waits[:3] == [0.5, 0.75, 1.0]
    assert waits[38:45] == [10.0] * 7
    assert waits[45:] == [0.25, 0.25]
    assert slept == [0.05, 0.05]


# --- what fails stops nothing beside it ---


def two_rollouts(server: ServerInMemory) -> tuple[str, str]:
    """Of two models, both with harm in a window that is over; the rows of the first cannot be read."""
    server.add_model("sleep")
    server.publish(model="sleep")
    server.publish(model="sleep")
    enrolled(server, *TREATED, *CONTROL)
    enrolled(server, *TREATED, *CONTROL, model="sleep")
    broken, whole = running(server, **CRASHES), running(server, model="sleep", **CRASHES)
    crash(server, broken)
    server.clock.now -= rollout(server, broken).window_s
    crash(server, whole, model="sleep")
    with server.database.transaction() as connection:
        connection.execute(update(schema.tally).where(schema.tally.c.rollout == broken).values(cell=b"{"))
    return broken, whole


def test_a_rollout_that_cannot_be_judged_keeps_no_other_from_going_back(server: ServerInMemory) -> None:
    """One row that could not be read ended every round, and no harm was judged any more, of any model."""
    broken, whole = two_rollouts(server)
    with pytest.raises(UntrustedInput):  # it is told
        server.round()
    assert rollout(server, broken).state in {State.RUNNING, State.SOAKING}
    assert rollout(server, whole).state is State.ROLLING_BACK
    assert [each.serial for each in policy(server, "sleep").quarantine] == [2]


def test_a_person_who_takes_a_version_back_is_not_told_of_another_models_trouble(
    server: ServerInMemory, caplog: pytest.LogCaptureFixture
) -> None:
    broken, _ = two_rollouts(server)
    with server.stores() as stores:
        move_by_person(
            stores.registry, stores.fleet, broken, "rollback", because="bad", actor="ana", now=server.clock.now
        )
    server.clock.now += 1
    server.run(server.controllers.settle())
    assert [each.serial for each in policy(server).quarantine] == [2]


def test_where_messages_cannot_be_counted_nothing_is_judged_and_the_rest_is_done(
    server: ServerInMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Devices whose reports lie in the inbox would look silent, which is no good news of a version."""
    enrolled(server, *DEVICES)
    identifier = running(server)
    judged = verdicts(server, identifier)
    server.clock.now += rollout(server, identifier).window_s

    async def broken(_: int) -> Taken:
        raise InvariantBroken("a bug")

    with server.stores() as stores:
        move_by_person(
            stores.registry, stores.fleet, identifier, "rollback", because="bad", actor="ana", now=server.clock.now
        )
    with monkeypatch.context() as patched:
        patched.setattr(server.inbox, "take", broken)
        with pytest.raises(InvariantBroken, match="a bug"):
            server.round()
    assert verdicts(server, identifier) == judged
    assert [each.serial for each in policy(server).quarantine] == [2]
    server.round()
    assert rollout(server, identifier).state is State.ROLLED_BACK


def test_the_first_failure_of_a_round_is_raised_and_the_others_are_in_the_log(
    server: ServerInMemory, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(error: Exception) -> Callable[[str], None]:
        def step(_: str) -> None:
            raise error

        return step

    monkeypatch.setattr(server.controllers.signatures, "remind", fails(UntrustedInput("first")))
    monkeypatch.setattr(server.controllers.expiry, "warn", fails(UntrustedInput("second")))
    monkeypatch.setattr(server.controllers.anchoring, "anchor", fails(ZeroDivisionError()))
    identifier = start(server)
    with pytest.raises(UntrustedInput, match="first"):
        server.round()
    assert [each.getMessage() for each in caplog.records] == [
        "warning of what expires of default failed, too: second",
        "anchoring of default failed, too",
    ]
    assert rollout(server, identifier).state is State.RUNNING


def test_a_database_that_does_not_answer_ends_the_round(
    server: ServerInMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(_: str) -> None:
        raise Unavailable("the database is locked")

    monkeypatch.setattr(server.controllers.judging, "look_for_spike", fails)
    identifier = start(server)
    with pytest.raises(Unavailable, match="the database is locked"):
        server.round()
    assert rollout(server, identifier).state is State.ADVANCING


# --- a person who waits ---


def test_what_a_person_asked_for_is_done_when_settling_returns(server: ServerInMemory) -> None:
    identifier = start(server)
    server.run(server.controllers.settle())
    assert rollout(server, identifier).state is State.RUNNING


def test_a_follower_waits_until_the_leader_has_signed(server: ServerInMemory, monkeypatch: pytest.MonkeyPatch) -> None:
    identifier = start(server)
    other = server.new_controllers()
    server.controllers.leader.resign()
    assert other.leader.take()
    sleep = asyncio.sleep
    waits = 0

    async def leader_works(delay_s: float) -> None:
        nonlocal waits
        waits += delay_s > 0
        if waits == 3:
            await other.round()
        await sleep(0)

    monkeypatch.setattr(controllers.asyncio, "sleep", leader_works)
    server.run(server.controllers.settle())
    assert waits == 3
    assert rollout(server, identifier).state is State.RUNNING


def test_a_follower_says_so_where_the_leader_does_not_sign(
    server: ServerInMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(controllers, "_SETTLE_WAIT_S", 0.01)
    start(server)
    server.controllers.leader.resign()
    assert server.new_controllers().leader.take()
    with pytest.raises(Unavailable, match="what you asked for is stored, but the leading server did not sign it"):
        server.run(server.controllers.settle())


def test_settling_tells_what_kept_the_change_from_being_signed(server: ServerInMemory) -> None:
    start(server)
    server.blobs.fails = Unavailable("the store does not answer")
    with pytest.raises(Unavailable, match="the store does not answer"):
        server.run(server.controllers.settle())
