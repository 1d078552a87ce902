"""Two policies are compared field by field, and each difference is a sentence."""

import msgspec
import pytest

from support.values import version
from whimbrel.flows.publishing.policy_changes import policy_changes
from whimbrel.model.selector import Selector
from whimbrel.policy.policy import Arm, Conditions, Entry, Layer, Pin, Policy, Quarantine

VERSIONS = {serial: version(serial) for serial in (1, 2, 3)}
ONE, TWO = (f"{VERSIONS[serial].version} ({VERSIONS[serial].semantic_version})" for serial in (1, 2))
BEFORE = Policy(model="wake", sequence=1, baseline=1)


def entry(*spans: tuple[int, int, int]) -> Layer:
    """A rollout that treats buckets [start, end) with a serial, a stage each."""
    arms = [
        Arm(role="treated", name=f"s{stage}", stage=stage, serial=serial, start=start, end=end)
        for stage, (start, end, serial) in enumerate(spans)
    ]
    return Layer(salt=42, entries=(Entry(rollout="r1", arms=tuple(arms)),))


def changes(before: Policy | None = BEFORE, **after: object) -> tuple[str, ...]:
    return policy_changes(before, msgspec.structs.replace(BEFORE, sequence=2, **after), VERSIONS)


def test_the_same_content_under_another_number_is_no_change() -> None:
    assert changes() == ()


@pytest.mark.parametrize(
    ("after", "words"),
    [
        ({"baseline": 2}, (f"the baseline is {TWO}, not {ONE}",)),
        ({"layers": (entry((0, 50_000, 2)),)}, (f"r1 begins: 5% on {TWO}",)),
        ({"quarantine": (Quarantine(serial=2),)}, (f"{TWO} is refused by every device",)),
        (
            {"quarantine": (Quarantine(serial=2, selector=Selector(match_labels={"os": "15"})),)},
            (f"{TWO} is refused by os=15",),
        ),
        ({"overrides": (2,)}, (f"{TWO} may be tried again where it failed",)),
        ({"known_good": (2, 1)}, (f"devices may go back to: {TWO}, {ONE}",)),
        ({"conditions": Conditions(charging=True)}, ("devices fetch and activate while charging",)),
        ({"refresh_s": 30.0}, ("refresh_s is 30.0, not 300.0",)),
        ({"on_revoked": "stop"}, ("on_revoked is stop, not keep",)),
        ({"report_labels": ("region",)}, ('report_labels is ["region"], not []',)),
        ({"pins": (Pin(serial=9, devices=("dev-1",)),)}, ('pins is [{"devices":["dev-1"],"serial":9}], not []',)),
        ({"baseline": 9}, (f"the baseline is serial 9, not {ONE}",)),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_each_difference_is_a_sentence(after: dict[str, object], words: tuple[str, ...]) -> None:
    assert changes(**after) == words


def test_a_rollout_moves_and_ends() -> None:
    five = msgspec.structs.replace(BEFORE, layers=(entry((0, 50_000, 2)),))
    more = changes(five, layers=(entry((0, 50_000, 2), (0, 250_000, 2)),))
    assert more == (f"r1: 25% on {TWO}, not 5% on {TWO}",)
    assert changes(five) == ("r1 has no say any more",)


def test_of_the_first_policy_all_is_told() -> None:
    assert changes(None) == (f"the baseline is {ONE}, not no version",)
    assert changes(None, baseline=None) == ("it is the first, and offers no version",)


def test_a_field_that_has_no_words_of_its_own_is_told_by_its_name() -> None:
    """Also one that policies get later."""
    of_their_own = {"model", "sequence", "baseline", "known_good", "layers", "quarantine", "overrides", "conditions"}
    others = {float: 7.0, str: "x", tuple: ("x",), type(None): 2}
    for name in set(Policy.__struct_fields__) - of_their_own - {"pins"}:
        (sentence,) = changes(**{name: others[type(getattr(BEFORE, name))]})
        assert sentence.startswith(f"{name} is ")
