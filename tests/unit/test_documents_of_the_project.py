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


@pytest.mark.parametrize(
    "index", [ROOT / "docs" / "README.md", ROOT / "docs" / "adr" / "README.md"], ids=["docs", "adr"]
)
def test_every_page_is_in_its_index(index: Path) -> None:
    below = {page for page in index.parent.rglob("*.md") if page.name != "README.md"}
    pages = {page for page in below if index.parent.name == "adr" or page.parent.name != "adr"}
    listed = {(index.parent / link).resolve() for link in LINK.findall(index.read_text()) if "://" not in link}
    assert not sorted(page.name for page in pages - listed)


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
