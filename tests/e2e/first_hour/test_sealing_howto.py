"""docs/howto/seal-a-model.md, followed as it is written."""

from pathlib import Path

import pytest

from support.literal_page import follow, steps_of
from support.sealing import CONTENTS

PAGE = (Path(__file__).parents[3] / "docs" / "howto" / "seal-a-model.md").read_text()


@pytest.mark.long
def test_the_page_is_right(tmp_path: Path) -> None:
    steps = steps_of(PAGE)
    assert PAGE.count("```sh\n") == len(steps) == 4
    assert all(printed for _, printed in steps)
    folder = tmp_path / "desk"
    folder.mkdir()
    for serial, content in CONTENTS.items():
        (folder / f"v{serial}.onnx").write_bytes(content)
    follow(steps, folder, script=tmp_path / "page.sh", timeout_s=240)
