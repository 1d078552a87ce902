"""The page on keys is followed literally: every ceremony of it is run as it is written, in a fresh folder."""

from pathlib import Path

import pytest

from support.literal_page import follow, steps_of

PAGE = (Path(__file__).parents[3] / "docs" / "howto" / "keys.md").read_text()


@pytest.mark.long
@pytest.mark.timeout(600)
def test_every_ceremony_ends_where_the_page_says(tmp_path: Path) -> None:
    folder = tmp_path / "fresh"
    folder.mkdir()
    follow(steps_of(PAGE), folder, script=tmp_path / "script.sh", timeout_s=550)


def test_every_block_of_the_page_is_a_step_or_its_output() -> None:
    steps = steps_of(PAGE)
    assert PAGE.count("```sh\n") == len(steps) > 7
    assert PAGE.count("```text\n") == sum(1 for _, printed in steps if printed)
