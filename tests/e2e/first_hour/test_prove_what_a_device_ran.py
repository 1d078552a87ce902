"""The page on proofs of what a device ran is followed literally, with a real server, a real agent and an app."""

from pathlib import Path

import pytest

from support.literal_page import follow, steps_of

PAGE = (Path(__file__).parents[3] / "docs" / "howto" / "prove-what-a-device-ran.md").read_text()


@pytest.mark.long
@pytest.mark.timeout(600)
def test_each_answer_of_the_page_is_the_one_that_is_given(tmp_path: Path) -> None:
    folder = tmp_path / "fresh"
    folder.mkdir()
    follow(steps_of(PAGE), folder, script=tmp_path / "script.sh", timeout_s=550)


def test_every_block_of_the_page_is_a_step_or_its_output() -> None:
    steps = steps_of(PAGE)
    assert PAGE.count("```sh\n") == len(steps) > 5
    assert PAGE.count("```text\n") == sum(1 for _, printed in steps if printed)
