"""A version's variants are for the hardware that its pipeline says."""

from support.values import file
from whimbrel.flows.publishing.check_hardware import hardware_is_open, hardware_objection
from whimbrel.model.release import Variant
from whimbrel.model.selector import EVERYONE, Expression, Selector

PI = Selector(match_labels={"hardware": "pi-4"})
BOTH = Selector(match_expressions=(Expression(key="hardware", operator="In", values=("pi-4", "pi-5")),))


def variant(selector: Selector, name: str = "default") -> Variant:
    return Variant(name=name, files=(file(),), selector=selector)


def test_variants_for_the_named_hardware_are_good() -> None:
    assert hardware_objection(("pi-4", "pi-5"), [variant(PI), variant(BOTH, "both")]) == ""
    assert hardware_objection((), [variant(PI)]) == ""
    assert hardware_objection(("pi-4",), [variant(EVERYONE)]) == ""


def test_a_variant_for_other_hardware_is_an_objection() -> None:
    assert hardware_objection(("pi-4",), [variant(PI), variant(BOTH, "both")]) == (
        "the variant 'both' is for hardware=pi-5, and the card's target_hardware is pi-4"
    )


def test_a_variant_that_asks_for_no_hardware_is_offered_to_all() -> None:
    assert hardware_is_open(("pi-4",), [variant(PI), variant(EVERYONE)])
    assert not hardware_is_open(("pi-4",), [variant(PI)])
    assert not hardware_is_open((), [variant(EVERYONE)])
