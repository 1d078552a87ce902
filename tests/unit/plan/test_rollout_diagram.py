"""The diagram in the documents is the table."""

from pathlib import Path

from whimbrel.plan.rollout_states import ENDED, LIVE, NEXT, PENDING, Event, State

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "rollout-states.md"


def diagram() -> str:
    """The table as Mermaid: one arrow a pair of states, with all events that lead along it."""
    arrows: dict[tuple[State, State], list[Event]] = {}
    for (before, event), after in NEXT.items():
        arrows.setdefault((before, after), []).append(event)
    order = {state: index for index, state in enumerate(State)}
    lines = ["stateDiagram-v2", "    [*] --> draft"]
    for (before, after), events in sorted(arrows.items(), key=lambda each: [order[state] for state in each[0]]):
        lines.append(f"    {before} --> {after}: {', '.join(sorted(events))}")
    lines += [f"    {state} --> [*]" for state in State if state in ENDED]
    return "\n".join(lines)


def test_the_page_shows_the_table() -> None:
    assert diagram() in PAGE.read_text(), f"put this into {PAGE.name}:\n{diagram()}"


def test_the_page_says_what_every_state_means() -> None:
    rows = {line.split("|")[1].strip(" `") for line in PAGE.read_text().splitlines() if line.startswith("| `")}
    assert rows >= set(State)


def test_every_state_is_waited_in_lived_in_gone_back_from_or_ended() -> None:
    assert PENDING | LIVE | ENDED | {State.ROLLING_BACK} == set(State)
