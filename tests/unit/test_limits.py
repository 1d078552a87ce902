"""Every bound has a unit or is a count, a reason, and a row in the reference; the page is made from the code."""

from pathlib import Path

from support.limits_page import SOURCE, amount, limits_of, page
from whimbrel import limits

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "security-limits.md"


def test_the_page_of_limits_is_what_the_code_says() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), f"python -m support.limits_page > {PAGE.name} (from tests/)"


def test_every_limit_has_a_reason_and_a_section() -> None:
    listed = list(limits_of(SOURCE.read_text()))
    assert [limit.name for limit in listed if not limit.reason] == []
    constants = {name for name in vars(limits) if name.isupper()} - {"KIB", "MIB", "GIB"}
    assert {limit.name for limit in listed} == constants
    assert len(listed) == len(constants) > 200


def test_a_value_is_shown_with_its_unit() -> None:
    assert amount("HEAD_BYTES") == "32 KiB"
    assert amount("BODY_RATE_BYTES_S") == "1 KiB a second"
    assert amount("HEAD_S") == "10 seconds"
    assert amount("CONNECTIONS") == "20,000"
    assert amount("DELTA_WORTH") == "0.9"
