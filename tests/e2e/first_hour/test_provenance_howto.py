"""The page on where a model comes from is followed literally, with the tool that teams sign with."""

from pathlib import Path

import pytest

from support.literal_page import follow, steps_of

PAGE = (Path(__file__).parents[3] / "docs" / "howto" / "prove-where-a-model-comes-from.md").read_text()


@pytest.mark.long
@pytest.mark.timeout(300)
def test_every_step_ends_where_the_page_says(tmp_path: Path) -> None:
    folder = tmp_path / "fresh"
    folder.mkdir()
    follow(steps_of(PAGE), folder, script=tmp_path / "script.sh", timeout_s=280)
