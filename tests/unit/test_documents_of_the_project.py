"""Do the project's own pages hold? Links lead somewhere, the journey has its steps, and words are in the glossary."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
LINK = re.compile(r"\[[^\]]+\]\(([^)#\s]+)(?:#[^)]*)?\)")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_of_a_page_leads_to_a_file(page: Path) -> None:
    links = [link for link in LINK.findall(page.read_text()) if "://" not in link]
    missing = [link for link in links if not (page.parent / link).exists()]
    assert not missing


def test_every_page_is_linked_from_the_index_of_its_folder() -> None:
    docs = ROOT / "docs"
    indexes = {docs / "README.md", docs / "adr" / "README.md"}
    linked = {(page.parent / link).resolve() for page in indexes for link in LINK.findall(page.read_text())}
    missing = [
        str(page.relative_to(docs)) for page in docs.rglob("*") if page.is_file() and page not in linked | indexes
    ]
    assert not missing


def test_every_decision_stands_in_the_index_with_its_number_title_and_a_line() -> None:
    folder = ROOT / "docs" / "adr"
    listed = re.findall(r"^\| (\d{4}) \| \[(.+)\]\((\S+)\) \| .+\. \|$", (folder / "README.md").read_text(), re.M)
    decisions = []
    for page in sorted(folder.glob("[0-9]*.md")):
        title = re.sub(r"^# (\d+[.:] )?", "", page.read_text().partition("\n")[0])
        decisions.append((page.name[:4], title[0].upper() + title[1:], page.name))
    assert listed == decisions


def test_the_journey_has_seventeen_steps_each_linked_to_its_file() -> None:
    rows = re.findall(r"^\| (\d+) ([a-z ,]+) \|.*\| (.*) \|$", (ROOT / "ARCHITECTURE.md").read_text(), re.M)
    assert [int(number) for number, _, _ in rows] == list(range(1, 18))
    unlinked = [name for _, name, where in rows if not LINK.search(where)]
    assert not unlinked


def test_every_file_of_the_code_says_which_question_it_answers() -> None:
    silent = [
        str(file.relative_to(ROOT))
        for file in (ROOT / "src").rglob("*.py")
        if not file.read_text().lstrip().startswith('"""')
    ]
    assert not silent


def test_no_page_or_code_names_a_package_registry() -> None:
    hosts = ("py" + "pi.org", "python" + "hosted", "npm" + "js.org")
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    texts = [ROOT / name for name in listed if not name.endswith((".gguf", ".onnx", ".bin", ".tflite"))]
    guilty = [str(path) for path in texts if path.is_file() and any(h.encode() in path.read_bytes() for h in hosts)]
    assert not guilty


def test_every_row_of_the_threat_model_names_tests_that_exist() -> None:
    page = (ROOT / "docs" / "explain" / "threat-model.md").read_text()
    rows = [line for line in page.splitlines() if line.startswith("|") and not line.startswith(("|---", "| who has"))]
    assert len(rows) > 40
    for row in rows:
        named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", row)
        assert named or "not tested" in row, row
        for file, test in named:
            assert re.search(rf"^def {test}\b", (ROOT / file).read_text(), re.M), (file, test)
