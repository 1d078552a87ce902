"""What a policy says of devices, and what it cannot say."""

import pytest

from support.values import arm, policy, selector
from whimbrel import limits
from whimbrel.policy.policy import Arm, Conditions, Entry, Layer, Pin, Policy
from whimbrel.policy.shadow import PPM, Shadow, ShadowStage

SHADOW = Shadow(sample_ppm=1000)


# --- refusals ---


def test_an_arm_ends_no_earlier_than_it_starts() -> None:
    assert arm("treated", 7, 7, serial=2).end == 7
    with pytest.raises(ValueError, match=r"^arm 'canary' starts at bucket 8, after its end 7$"):
        arm("treated", 8, 7, serial=2)


def test_an_entry_ends_no_earlier_than_it_starts() -> None:
    assert Entry(rollout="r1", arms=(), start=7, end=7).end == 7
    with pytest.raises(ValueError, match=r"^entry 'r1' starts at bucket 8, after its end 7$"):
        Entry(rollout="r1", arms=(), start=8, end=7)


def test_nothing_is_tried_beside_what_a_control_runs() -> None:
    assert arm("treated", 0, 9, serial=2, shadow=SHADOW).shadow == SHADOW
    with pytest.raises(ValueError, match=r"^arm 'control' is a control, and nothing is tried beside"):
        arm("control", 0, 9, serial=1, shadow=SHADOW)


@pytest.mark.parametrize("delays", [(), (5.0,), (5.0, 5.0), (0.0, 5.0, 5.0, 60.0)])
def test_delays_that_do_not_fall_are_quantiles(delays: tuple[float, ...]) -> None:
    assert Entry(rollout="r1", arms=(), delays_s=delays, delays_by_class={"pi": delays}).delays_of("pi") == delays


@pytest.mark.parametrize(
    "delays",
    [
        {"delays_s": (5.0, 4.9)},
        {"delays_s": (1.0, 2.0, 3.0, 2.0)},
        {"delays_by_class": {"pi": (5.0, 4.9)}},
        {"delays_s": (1.0, 2.0), "delays_by_class": {"pi": (1.0, 2.0), "pc": (2.0, 1.0)}},
    ],
)
def test_delays_out_of_order_are_no_quantiles(delays: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"^delays_s are quantiles: none may be below the one before it$"):
        Entry(rollout="r1", arms=(), **delays)


@pytest.mark.parametrize("names", [{}, {"selector": selector(desk="yes"), "devices": ("dev-1",)}])
def test_a_pin_names_its_devices_in_one_way(names: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"^a pin names either a selector or device ids$"):
        Pin(serial=1, **names)


def test_the_pins_of_a_policy_name_a_thousand_devices_together() -> None:
    def pins(*sizes: int) -> tuple[Pin, ...]:
        ids = iter(range(10_000))
        return tuple(Pin(serial=1, devices=tuple(f"dev-{next(ids)}" for _ in range(size))) for size in sizes)

    half = limits.PINS // 2
    by_selector = Pin(serial=1, selector=selector(desk="yes"))
    assert len(policy(pins=(*pins(half, half), by_selector)).pins) == 3
    with pytest.raises(ValueError, match=rf"^pins name more than {limits.PINS} devices; use a selector$"):
        policy(pins=pins(half, half, 1))


# --- what it says ---


def test_a_class_of_devices_has_its_own_delays_and_all_others_share_a_table() -> None:
    entry = Entry(rollout="r1", arms=(), delays_s=(1.0, 2.0), delays_by_class={"pi": (20.0, 90.0)})
    assert (entry.delays_of("pi"), entry.delays_of("pc"), entry.delays_of("")) == ((20.0, 90.0), (1.0, 2.0), (1.0, 2.0))


def arms_of_two_stages() -> tuple[Arm, ...]:
    return tuple(
        Arm(role=role, name=f"{role}-{stage}", stage=stage, serial=2, start=0, end=9)
        for stage in (0, 1)
        for role in ("treated", "control")
    )


@pytest.mark.parametrize("role", ["treated", "control"])
@pytest.mark.parametrize("stage", [0, 1])
def test_an_arm_is_found_by_its_role_and_stage(role: str, stage: int) -> None:
    found = Entry(rollout="r1", arms=arms_of_two_stages()).arm_of(role=role, stage=stage)
    assert found is not None
    assert found.name == f"{role}-{stage}"


def test_an_arm_that_is_not_there_is_none() -> None:
    assert Entry(rollout="r1", arms=arms_of_two_stages()).arm_of(role="treated", stage=2) is None


def conditioned() -> Policy:
    """Two rollouts in two layers; only stage 1 of the second has conditions of its own."""
    idle = Conditions(idle=True)
    second = Entry(
        rollout="r2",
        arms=(
            arm("treated", 0, 9, serial=3),
            arm("treated", 0, 99, serial=3, stage=1, conditions=idle),
            arm("control", 99, 999, serial=1, stage=1),
        ),
    )
    return policy(
        layers=(Layer(salt=1, entries=policy().layers[0].entries), Layer(salt=2, entries=(second,))),
        conditions=Conditions(charging=True),
    )


@pytest.mark.parametrize(
    ("rollout", "role", "stage", "own"),
    [
        ("r2", "treated", 1, True),
        ("r2", "treated", 0, False),
        ("r2", "control", 1, False),
        ("r2", "treated", 2, False),
        ("r1", "treated", 0, False),
        ("r3", "treated", 1, False),
        (None, "treated", 1, False),
    ],
)
def test_an_arms_own_conditions_replace_the_policys(rollout: str | None, role: str, stage: int, own: bool) -> None:
    expected = Conditions(idle=True) if own else Conditions(charging=True)
    assert conditioned().conditions_of(rollout, role=role, stage=stage) == expected


def test_the_labels_that_divide_devices_in_any_entry_are_private() -> None:
    entries = [Entry(rollout=f"r{n}", arms=(), bucket_by=label) for n, label in enumerate(("user_id", None, "home"))]
    divided = policy(layers=(Layer(salt=1, entries=tuple(entries[:2])), Layer(salt=2, entries=tuple(entries[2:]))))
    assert divided.private_labels == {"user_id", "home"}
    assert policy().private_labels == frozenset()


def test_a_device_reports_its_class_and_the_slices_that_it_has() -> None:
    labels = {"hardware": "pi", "chip": "x1", "os": "linux", "ring": "beta"}
    assert policy().reported_labels(labels) == ("pi", {})
    asked = policy(hardware_label="chip", slice_labels=("region", "os"))
    assert asked.reported_labels(labels) == ("x1", {"os": "linux"})
    assert asked.reported_labels({}) == ("", {})


# --- shadow stages ---


@pytest.mark.parametrize(
    ("percent", "ppm"), [(5.0, 50_000), (100.0, PPM), (0.0001, 1), (0.00001, 1), (0.00016, 2), (33.3333, 333_333)]
)
def test_a_device_gets_the_share_of_calls_in_millionths_and_at_least_one(percent: float, ppm: int) -> None:
    asked = ShadowStage(sample_percent=percent, compare="values", tolerance=0.25)
    assert asked.order == Shadow(sample_ppm=ppm, compare="values", tolerance=0.25)
