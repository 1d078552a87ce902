"""`whimbrel gate`: ask the gate about windows of one's own, without a server."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from whimbrel import limits
from whimbrel.cli.output import Json, print_json, say
from whimbrel.cli.text_file import read_text
from whimbrel.errors import UntrustedInput, reason_of
from whimbrel.flows.files.card import CardReference
from whimbrel.flows.files.plan_file import read_plan
from whimbrel.flows.files.windows_file import read_windows
from whimbrel.flows.files.yaml_file import parse_yaml
from whimbrel.flows.replay_windows import replay_windows
from whimbrel.flows.wording import move_words
from whimbrel.gate.ledger import References
from whimbrel.server.admin.views.verdicts import evidence_of

app = typer.Typer(help="The gate: judge a file of windows.", no_args_is_help=True, add_completion=False)


@app.callback()
def _gate() -> None:
    """The gate: judge a file of windows."""


@app.command("replay")
def replay(
    windows: Annotated[Path, typer.Argument(help="Tally windows, one cell a line (JSON).")],
    plan: Annotated[Path, typer.Option(help="The plan, a YAML file.")],
    hour_s: Annotated[float, typer.Option(min=0.01, max=3600, help="Seconds that an hour of the plan lasts.")] = 3600.0,
    reference: Annotated[
        Path | None,
        typer.Option(help="Spread of the new version's predictions, as in a card: YAML with edges or classes, shares."),
    ] = None,
    control_reference: Annotated[
        Path | None, typer.Option(help="Of the control's version; the same as --reference by default.")
    ] = None,
    json: Json = False,
) -> None:
    """Judge a file of windows as the controller would have: one verdict a window, until the version goes back."""
    asked = read_plan(read_text(plan), what=plan.name)
    cells = read_windows(_lines(windows), plan=asked, what=windows.name)
    treated = _shares(reference)
    references = References(treated=treated, control=_shares(control_reference) or treated)
    for judged in replay_windows(asked, cells, hour_s=hour_s, references=references):
        if json:
            print_json(
                {"window": judged.window, "stage": judged.stage, "stage_name": judged.stage_name}
                | msgspec.to_builtins(judged.verdict)
            )
        else:
            evidence = evidence_of(judged.verdict.evidence)
            say(
                f"window {judged.window}  {judged.stage_name}  ln E {evidence.log_e:.2f} of "
                f"{evidence.log_e_needed:.2f}  {move_words(judged.verdict.move)}: {judged.verdict.because}"
            )


def _shares(path: Path | None) -> tuple[float, ...] | None:
    return None if path is None else parse_yaml(CardReference, read_text(path), what=path.name).reference().bin_shares


def _lines(path: Path) -> Iterator[bytes]:
    try:
        if path.stat().st_size > limits.WINDOW_FILE_BYTES:
            raise UntrustedInput(f"{path} has {path.stat().st_size} bytes; at most {limits.WINDOW_FILE_BYTES} are read")
        with path.open("rb") as file:
            while line := file.readline(limits.WINDOW_LINE_BYTES + 2):
                yield line
    except OSError as error:
        raise UntrustedInput(f"the windows {path} cannot be read: {reason_of(error)}") from error
