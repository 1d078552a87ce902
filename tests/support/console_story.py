"""A fleet with a past, for pages to show: three models, a rollout under way, one that was taken back, one that waits.

`tell(server)` writes it by the product's own flows and stores into a `ServerInMemory`, at the time of its clock: what
devices told is drawn from one seed. Nothing of it is judged by hand: the gate looks after windows of the story.
"""

import random
from typing import Any

from support.server_in_memory import ServerInMemory
from support.values import enrol, plan, stage
from whimbrel.flows.device_records import Participation, RunningVersion
from whimbrel.flows.monitors.records import Episode
from whimbrel.flows.records import RolloutRecord
from whimbrel.flows.rollouts.judge import judge_rollout
from whimbrel.flows.rollouts.move import move
from whimbrel.flows.rollouts.progress import follow
from whimbrel.flows.rollouts.start import start_rollout
from whimbrel.health.device_hour import HourSums, Spread
from whimbrel.health.tally import Cell, Moments
from whimbrel.plan.governance import Approval
from whimbrel.plan.plan import Plan
from whimbrel.plan.rollout_states import Event
from whimbrel.stores.transaction import Stores

DAY, HOUR = 86400.0, 3600.0
CLASSES = {"pixel-7": 0.42, "pixel-8": 0.33, "galaxy-s23": 0.18, "moto-g": 0.07}
HARMED, WAITING, LIVE = "keyword", "gesture", "wake"


class Story:
    """Ids of what was told."""

    def __init__(self, hours: float) -> None:
        self.hours = hours
        self.live = self.back = self.waiting = self.done = ""


def tell(server: ServerInMemory, *, devices: int = 1204, seed: int = 7, hours: float = 1000) -> Story:
    """Write the story. `devices`: that follow the first model; the others have a third of them.

    The server has one version of `wake`. `hours`: so many of the last ones of each stage are told at most.
    """
    story, chance = Story(hours), random.Random(seed)
    now = server.clock.now
    server.round()
    _versions(server, now=now)
    names = [f"phone-{n:04d}" for n in range(devices)]
    with server.stores() as stores:
        classes = _enrol(stores, names, chance, now=now)
    with server.stores() as stores:
        story.done = _completed(stores, now=now)
        story.live = _live(stores, story, names, classes, now=now)
        story.back = _taken_back(stores, story, names[: devices // 3], classes, now=now)
        story.waiting = _waits(stores, story, names[: devices // 3], classes, now=now)
        _hours(stores, story, devices, now=now)
        _running(stores, names, classes, now=now)
        stores.health.begin_episode(
            Episode(
                model=WAITING,
                serial=1,
                monitor="latency_p95_ms <= 80",
                since=now - 3 * HOUR,
                because="latency p95 is 96 ms over the last 24 hours, and the objective is at most 80 ms "
                "(ln E 7.9, needed 7.6)",
            )
        )
    server.clock.now = now
    server.round()
    return story


def _versions(server: ServerInMemory, *, now: float) -> None:
    for model in (HARMED, WAITING):
        server.clock.now = now - 20 * DAY
        server.add_model(model)
        server.publish(model=model)
    for days, model in ((9.0, LIVE), (5.0, HARMED), (2.5, LIVE), (1.2, WAITING)):
        server.clock.now = now - days * DAY
        server.publish(model=model)
    server.clock.now = now


def _enrol(stores: Stores, names: list[str], chance: random.Random, *, now: float) -> dict[str, str]:
    classes = {}
    for name in names:
        classes[name] = chance.choices(list(CLASSES), list(CLASSES.values()))[0]
        labels = {"hardware": classes[name], "region": chance.choice(["NZ", "AU", "NO"])}
        heard_s = chance.uniform(1.2, 9) * DAY if chance.random() < 0.02 else chance.uniform(0, HOUR)
        came = now - chance.uniform(25, 90) * DAY
        enrol(stores, name, labels=labels, at=now - heard_s, enrolled_at=came, admitted_at=came)
    return classes


def _start(stores: Stores, asked: Plan, *, tag: str, at: float) -> RolloutRecord:
    rollout = start_rollout(
        stores.registry, stores.fleet, asked, plan_text="", tag=tag, hour_s=HOUR, actor="ada@example.com", now=at
    )
    return follow(stores.registry, stores.fleet, rollout, published=True, now=at + 4)


def _completed(stores: Stores, *, now: float) -> str:
    at = now - 8 * DAY
    rollout = _start(stores, plan(model_version=f"{LIVE}@2.0.0"), tag="a1", at=at)
    for because, hours in (
        ("no harm in 62 devices of stage canary", 25),
        ("no harm in 310 devices of stage early", 74),
    ):
        rollout = _moved(stores, rollout, Event.ADVANCE, because, at=at + hours * HOUR)
    return _moved(stores, rollout, Event.FINISH, "no harm in 1,190 devices of stage general", at=at + 98 * HOUR).id


def _moved(stores: Stores, rollout: RolloutRecord, event: Event, because: str, *, at: float) -> RolloutRecord:
    after = move(stores.registry, stores.fleet, rollout, event, because=because, actor="gate", evidence={}, now=at)
    return follow(stores.registry, stores.fleet, after, published=True, now=at + 4)


def _live(stores: Stores, story: Story, names: list[str], classes: dict[str, str], *, now: float) -> str:
    """The third version, a day into its second stage, and well."""
    at = now - 2 * DAY
    rollout = _start(stores, plan(model_version=f"{LIVE}@3.0.0", guardrails=()), tag="b2", at=at)
    treated = len(names) // 20
    _places(stores, rollout, names[: len(names)], classes, treated=treated, at=at, stage=0)
    _windows(
        stores,
        story,
        rollout,
        stage=0,
        hours=(0, 24),
        treated=treated,
        control=len(names) - treated,
        crash=(0.010, 0.011),
    )
    rollout = _moved(stores, rollout, Event.ADVANCE, f"no harm in {treated} devices of stage canary", at=at + 25 * HOUR)
    treated, more = len(names) // 4, names[treated:]
    _places(stores, rollout, more, classes, treated=treated - (len(names) - len(more)), at=at + 25 * HOUR, stage=1)
    _windows(
        stores,
        story,
        rollout,
        stage=1,
        hours=(25, 47),
        treated=treated,
        control=len(names) - treated,
        crash=(0.0098, 0.011),
    )
    rollout = follow(stores.registry, stores.fleet, rollout, published=True, now=now - HOUR)
    judge_rollout(stores.registry, stores.fleet, rollout, now=now - HOUR / 2, ledgers={})
    return rollout.id


def _taken_back(stores: Stores, story: Story, names: list[str], classes: dict[str, str], *, now: float) -> str:
    """A version whose errors the gate sees after some hours of its canary."""
    at = now - 30 * HOUR
    rollout = _start(stores, plan(model_version=f"{HARMED}@2.0.0"), tag="c3", at=at)
    treated = max(4, len(names) // 20)
    _places(stores, rollout, names, classes, treated=treated, at=at, stage=0)
    _windows(
        stores,
        story,
        rollout,
        stage=0,
        hours=(0, 3),
        treated=treated,
        control=len(names) - treated,
        errors=(0.158, 0.002),
    )
    rollout = follow(stores.registry, stores.fleet, rollout, published=True, now=at + HOUR)
    verdict = judge_rollout(stores.registry, stores.fleet, rollout, now=at + 3 * HOUR + 60, ledgers={})
    evidence = dict(verdict.evidence)
    after = move(
        stores.registry,
        stores.fleet,
        rollout,
        Event.ROLL_BACK,
        because=verdict.because,
        actor="gate",
        evidence=evidence,
        now=at + 3 * HOUR + 60,
    )
    return follow(stores.registry, stores.fleet, after, published=True, now=at + 3 * HOUR + 90).id


def _waits(stores: Stores, story: Story, names: list[str], classes: dict[str, str], *, now: float) -> str:
    """A version that waits for a second person."""
    stages = (stage(hours=12), stage("everyone", 100, hours=0, approval=Approval(count=1, note="look at the battery")))
    at = now - 20 * HOUR
    rollout = _start(stores, plan(*stages, model_version=f"{WAITING}@2.0.0"), tag="d4", at=at)
    treated = max(4, len(names) // 20)
    _places(stores, rollout, names, classes, treated=treated, at=at, stage=0)
    _windows(stores, story, rollout, stage=0, hours=(0, 13), treated=treated, control=len(names) - treated)
    rollout = follow(stores.registry, stores.fleet, rollout, published=True, now=at + HOUR)
    because = f"no harm in {treated} devices of stage canary; stage everyone begins when one person has approved"
    return _moved(stores, rollout, Event.AWAIT_APPROVAL, because, at=now - 7 * HOUR).id


def _places(
    stores: Stores,
    rollout: RolloutRecord,
    names: list[str],
    classes: dict[str, str],
    *,
    treated: int,
    at: float,
    stage: int,
) -> None:
    stores.fleet.save_participation(
        *(
            Participation(
                rollout=rollout.id,
                stage=stage,
                device_id=name,
                role="treated" if place < treated else "control",
                hardware_class=classes[name],
                assigned_at=at,
                begun_at=at + 60,
                activated_at=at + 300 if place % 40 != 3 else None,
                reported_at=at + 900 if place % 40 != 3 and place % 25 != 7 else None,
                used_at=at + 900,
                heard_at=at + 900,
                hearing="heard",
            )
            for place, name in enumerate(names)
        )
    )


def _windows(
    stores: Stores,
    story: Story,
    rollout: RolloutRecord,
    *,
    stage: int,
    hours: tuple[int, int],
    treated: int,
    control: int,
    crash: tuple[float, float] = (0.004, 0.004),
    errors: tuple[float, float] = (0.002, 0.002),
) -> None:
    """What both arms told in each window of these hours."""
    chance = random.Random(f"{rollout.id} {stage}")
    each = max(1, round(HOUR / rollout.window_s))
    cells = []
    first = max(hours[0] * each, round((hours[1] - story.hours) * each))
    for window in range(first, hours[1] * each):
        for role, count, crashes, wrong in (
            ("treated", treated, crash[0], errors[0]),
            ("control", control, crash[1], errors[1]),
        ):
            for name, share in CLASSES.items():
                n = max(1, round(count * share / 4))
                cells.append(
                    _cell(role, window, stage=stage, n=n, name=name, crash=crashes / each, wrong=wrong, chance=chance)
                )
    stores.fleet.tally(rollout.id, cells)


def _cell(
    role: str, window: int, *, stage: int, n: int, name: str, crash: float, wrong: float, chance: random.Random
) -> Cell:
    crashed = sum(chance.random() < crash for _ in range(n))
    share = sum(max(0.0, chance.gauss(wrong, wrong / 3)) for _ in range(n))
    latency: dict[int, int] = {}
    for _ in range(n):
        key = round(chance.gauss(180, 6))
        latency[key] = latency.get(key, 0) + 1
    mean = 0.964 if wrong < 0.1 else 0.961
    values: dict[str, Any] = {
        "stage": stage,
        "window": window,
        "role": role,
        "hardware_class": name,
        "age_bucket": 0,
        "at_risk": n,
        "sessions": n,
        "unused": n // 12,
        "crashed": crashed,
        "error_units": n,
        "error_share": share,
        "error_squares": share * share / n,
        "metrics": {"accuracy": Moments(n=n, sum=mean * n, sumsq=n * (mean * mean + 0.0004))},
        "latency": latency,
        "due": n,
        "overdue": sum(chance.random() < 0.01 for _ in range(n)),
    }
    return Cell(**values)


def _hours(stores: Stores, story: Story, devices: int, *, now: float) -> None:
    """A week of the first model by hour, and of the others."""
    last = int(now // HOUR)
    for model, count in ((LIVE, devices), (HARMED, devices // 3), (WAITING, devices // 3)):
        for hour in range(last - round(min(7 * 24, 8 * story.hours)), last + 1):
            ago_h, day = last - hour, 0.72 + 0.2 * (1 if 6 <= hour % 24 <= 22 else 0.2)
            for serial, part in _parts(model, ago_h).items():
                sums = {
                    name: HourSums(devices=n, used=n, errors=Spread(n=n, sum=0.002 * n, sumsq=0.0001))
                    for name, share in CLASSES.items()
                    if (n := round(count * part * share * day))
                }
                if sums:
                    stores.health.add_hour(model, serial, hour, sums)


def _parts(model: str, ago_h: int) -> dict[int, float]:
    if model == LIVE:
        second = min(1.0, max(0.0, (190 - ago_h) / 96))
        third = 0.25 if ago_h <= 22 else 0.05 if ago_h <= 47 else 0.0
        return {1: 1 - second, 2: max(0.0, second - third), 3: third}
    if model == HARMED:
        return {1: 0.95, 2: 0.05} if 27 <= ago_h <= 30 else {1: 1.0}
    return {1: 0.95, 2: 0.05} if ago_h <= 20 else {1: 1.0}


def _running(stores: Stores, names: list[str], classes: dict[str, str], *, now: float) -> None:
    told = []
    for place, name in enumerate(names):
        serial = 3 if place < len(names) // 4 else None if place % 97 == 96 else 2
        told.append(RunningVersion(device_id=name, model=LIVE, serial=serial, hardware_class=classes[name], at=now))
        if place < len(names) // 3:
            told.append(RunningVersion(device_id=name, model=HARMED, serial=1, hardware_class=classes[name], at=now))
            second = 2 if place % 20 == 0 else 1
            told.append(
                RunningVersion(device_id=name, model=WAITING, serial=second, hardware_class=classes[name], at=now)
            )
    stores.fleet.note_running(*told)
