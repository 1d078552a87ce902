"""The diagram in the documents is the table."""

from pathlib import Path

from whimbrel.device.states import NEXT, RESTING

PAGE = Path(__file__).parents[3] / "docs" / "explain" / "agent.md"


def diagram() -> str:
    """The table as Mermaid: one arrow a pair of states, with all events that lead along it."""
    arrows: dict[tuple[str, str], list[str]] = {}
    for (before, event), after in NEXT.items():
        arrows.setdefault((before.name.lower(), after.name.lower()), []).append(event.__name__)
    lines = ["stateDiagram-v2", "    [*] --> idle"]
    lines += [f"    {before} --> {after}: {', '.join(events)}" for (before, after), events in arrows.items()]
    lines += [f"    note right of {state.name.lower()}: at rest" for state in sorted(RESTING)]
    return "\n".join(lines)


def test_the_page_shows_the_table() -> None:
    assert diagram() in PAGE.read_text(), f"put this into {PAGE.name}:\n{diagram()}"
