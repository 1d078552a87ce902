"""`whimbrel agent run|check|status`: the device's side, from a terminal or a service manager."""

import os
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from whimbrel.agent import daemon
from whimbrel.agent.app import Agent, CycleResult
from whimbrel.agent.bundle import models_of
from whimbrel.agent.change_command import ENROL_TOKEN, words_of
from whimbrel.agent.locks import is_held
from whimbrel.agent.options import AgentOptions
from whimbrel.agent.status import own_words, read_status, state_words, waits_for_words
from whimbrel.cage.check import report
from whimbrel.cli.agent_history import agent_history
from whimbrel.cli.option_values import pair_of
from whimbrel.errors import Unavailable, UntrustedInput, reason_of
from whimbrel.model import documents
from whimbrel.plain_text import in_json, one_line

app = typer.Typer(
    add_completion=False,
    help="Keep the models of this device as their policies say.\n\n"
    "The first time, say where the server is and whom to trust; the folder remembers it:\n\n"
    "  whimbrel agent run --folder /var/lib/models --server https://models.example.com --root root.json "
    "--model detector\n\n"
    "Later, `whimbrel agent run --folder /var/lib/models` is enough.",
    no_args_is_help=True,
)

app.command("history")(agent_history)

Folder = Annotated[Path, typer.Option("--folder", help="Where the agent keeps models, journal and settings.")]
ServerUrl = Annotated[str | None, typer.Option("--server", help="The server, such as https://models.example.com.")]
RootFile = Annotated[Path | None, typer.Option("--root", help="The trust root: root.json, as its owner gave it.")]
Models = Annotated[list[str] | None, typer.Option("--model", "-m", help="A model to keep; give it again for more.")]
Namespace = Annotated[str | None, typer.Option("--namespace", help="The team or app; 'default' unless given.")]
DeviceId = Annotated[str | None, typer.Option("--device-id", help="This device's name; random and kept unless given.")]
Labels = Annotated[
    list[str] | None,
    typer.Option("--label", help="key=value that policies may select by; give it again for more. Stays on the device."),
]
TokenFile = Annotated[
    Path | None,
    typer.Option(
        "--enrol-token-file",
        help=f"A file with the enrolment token; else ${ENROL_TOKEN}. Without one the device listens and tells nothing.",
    ),
]
Mirrors = Annotated[
    list[str] | None,
    typer.Option("--mirror", help="A URL below which artifacts lie, asked before the server; give it again for more."),
]
Proxy = Annotated[str | None, typer.Option("--proxy", help="A proxy; else HTTPS_PROXY and its like. '' for none.")]
InsecureHttp = Annotated[
    bool | None,
    typer.Option(
        "--insecure-http/--no-insecure-http",
        help="Ask a server on another machine without TLS: whoever listens reads the credential and the reports.",
    ),
]
CaFile = Annotated[
    str | None,
    typer.Option("--ca-file", help="Certificates (PEM) to trust instead of the machine's own. '' for these."),
]
Bandwidth = Annotated[int | None, typer.Option("--bandwidth-kib-s", min=0, help="A cap on downloads; 0: none.")]
Metered = Annotated[
    int | None,
    typer.Option("--metered-mib-a-day", min=0, help="Fetched in a day on a metered network; 0: as the policies say."),
]
RefreshMin = Annotated[
    float | None,
    typer.Option(
        "--refresh-min-s",
        min=0,
        max=86400,
        help="Seconds between two looks for news at least, whatever policies say; 0: as they say.",
    ),
]
MeteredRefreshMin = Annotated[
    float | None,
    typer.Option(
        "--metered-refresh-min-s",
        min=0,
        max=86400,
        help="The same where the network is known to be metered; 300 unless given.",
    ),
]
SealedAtRest = Annotated[
    bool | None,
    typer.Option(
        "--sealed-at-rest/--no-sealed-at-rest",
        help="Keep sealed models sealed on the disk; sessions open them into memory (Linux).",
        show_default=False,
    ),
]
Quota = Annotated[int | None, typer.Option("--quota-mib", min=0, help="Bound of the folder; 0: what the disk has.")]
Attestation = Annotated[
    str | None,
    typer.Option(
        "--attestation",
        help="Enrol with an attestation of this kind, by an installed attester. '' for none.",
    ),
]
OnChange = Annotated[
    str | None,
    typer.Option("--on-change", help="A command that runs when another version is active; give it at each start."),
]
Json = Annotated[bool, typer.Option("--json", help="One JSON object a line.")]


@app.command()
def run(
    folder: Folder,
    server: ServerUrl = None,
    root: RootFile = None,
    model: Models = None,
    namespace: Namespace = None,
    device_id: DeviceId = None,
    label: Labels = None,
    enrol_token_file: TokenFile = None,
    mirror: Mirrors = None,
    proxy: Proxy = None,
    insecure_http: InsecureHttp = None,
    ca_file: CaFile = None,
    bandwidth_kib_s: Bandwidth = None,
    metered_mib_a_day: Metered = None,
    refresh_min_s: RefreshMin = None,
    metered_refresh_min_s: MeteredRefreshMin = None,
    quota_mib: Quota = None,
    attestation: Attestation = None,
    sealed_at_rest: SealedAtRest = None,
    on_change: OnChange = None,
) -> None:
    """Run until SIGTERM: refresh, decide, install, try, commit or go back, report.

    --on-change COMMAND runs when another version is active, beside the agent and for at most 30 s. Its environment has
    WHIMBREL_KIND (activated or went_back), _MODEL, _VERSION, _SERIAL, _PATH, _VERSION_BEFORE and _SERIAL_BEFORE.

    Apps open sessions on the same folder, also when this is not running.
    """
    if on_change is not None:
        words_of(on_change)
    with _open(
        folder,
        enrol_token_file,
        label,
        server=server,
        root=root,
        models=model or None,
        namespace=namespace,
        device_id=device_id,
        mirrors=mirror or None,
        proxy=proxy,
        insecure_http=insecure_http,
        ca_file=ca_file,
        bandwidth_kib_s=bandwidth_kib_s,
        metered_mib_a_day=metered_mib_a_day,
        refresh_min_s=refresh_min_s,
        metered_refresh_min_s=metered_refresh_min_s,
        quota_mib=quota_mib,
        attestation=attestation,
        sealed_at_rest=sealed_at_rest,
    ):
        pass  # what was given is right, and in the folder
    token = _enrol_token(enrol_token_file)
    daemon.become(folder, enrol_token=token, on_change=on_change)
    daemon.run_folder(folder, enrol_token=token, on_change=on_change)


@app.command()
def check(
    folder: Folder,
    server: ServerUrl = None,
    root: RootFile = None,
    model: Models = None,
    namespace: Namespace = None,
    device_id: DeviceId = None,
    label: Labels = None,
    enrol_token_file: TokenFile = None,
    mirror: Mirrors = None,
    proxy: Proxy = None,
    insecure_http: InsecureHttp = None,
    ca_file: CaFile = None,
    bandwidth_kib_s: Bandwidth = None,
    metered_mib_a_day: Metered = None,
    refresh_min_s: RefreshMin = None,
    metered_refresh_min_s: MeteredRefreshMin = None,
    quota_mib: Quota = None,
    attestation: Attestation = None,
    sealed_at_rest: SealedAtRest = None,
    json: Json = False,
) -> None:
    """Do one cycle now, and say what was decided and why. It may download, probe and activate.

    Exit status 3 when the server could not be asked, or what it said could not be used.
    """
    with _open(
        folder,
        enrol_token_file,
        label,
        server=server,
        root=root,
        models=model or None,
        namespace=namespace,
        device_id=device_id,
        mirrors=mirror or None,
        proxy=proxy,
        insecure_http=insecure_http,
        ca_file=ca_file,
        bandwidth_kib_s=bandwidth_kib_s,
        metered_mib_a_day=metered_mib_a_day,
        refresh_min_s=refresh_min_s,
        metered_refresh_min_s=metered_refresh_min_s,
        quota_mib=quota_mib,
        attestation=attestation,
        sealed_at_rest=sealed_at_rest,
    ) as agent:
        result = agent.cycle(force=True)
    _end_with(result, json=json)


@app.command("import")
def import_bundle(
    folder: Folder,
    bundle: Annotated[Path, typer.Argument(help="The file.")],
    server: ServerUrl = None,
    root: RootFile = None,
    model: Models = None,
    namespace: Namespace = None,
    device_id: DeviceId = None,
    label: Labels = None,
    json: Json = False,
) -> None:
    """Take a model from a bundle (`whimbrel bundle export`), with all the checks of a download.

    The first time on a device --root is needed; the models are those of the bundle unless --model says else, and a
    --server may come later. Exit status 3 when something of the bundle could not be used.
    """
    is_first = not (folder / "agent.json").exists()
    if is_first:
        server, model = server or "", model or models_of(bundle)
    with _open(
        folder,
        None,
        label,
        server=server,
        root=root,
        models=model or None,
        namespace=namespace,
        device_id=device_id,
    ) as agent:
        result = agent.import_bundle(bundle)
    _end_with(result, json=json)


@app.command()
def status(folder: Folder, json: Json = False) -> None:
    """What each model runs, and why. Reads the folder only; works while the agent runs, and when it does not."""
    agent_status = read_status(folder)
    agent_status["running"] = is_held(folder / "agent.lock")
    agent_status["open_walls"] = _open_walls()
    if json:
        _print_json(agent_status)
        return
    _print_models(agent_status["models"])
    refreshed = agent_status.get("last_refresh")
    when = datetime.fromtimestamp(refreshed, UTC).strftime("%Y-%m-%d %H:%M:%S UTC") if refreshed else "never"
    ago = f" ({max(0.0, time.time() - refreshed):.0f} s ago)" if refreshed else ""
    sys.stdout.write(
        f"device {agent_status['device_id']}; agent {'running' if agent_status['running'] else 'not running'}; "
        f"last refresh {when}{ago}; {_waiting_words(agent_status['windows_waiting'])}\n"
    )
    if agent_status.get("public_key"):
        sys.stdout.write(f"its key: {agent_status['public_key']}\n")
    for name, each in agent_status["models"].items():
        if sealed := each.get("sealed"):
            where = "stays sealed here, and sessions open it into memory" if sealed == "at rest" else "was opened here"
            sys.stdout.write(f"{one_line(name)} came sealed, and {where}\n")
    if not agent_status.get("patches", True):
        sys.stdout.write("patches cannot be applied here, so versions come whole: pip install 'whimbrel[delta]'\n")
    if missing := agent_status.get("not_measured"):
        words = "; ".join(f"{name} ({reason})" for name, reason in missing.items())
        sys.stdout.write(f"not measured here: {words}\n")
    for means in agent_status["open_walls"].values():
        sys.stdout.write(f"the cage is open here: {means} (see `whimbrel doctor`)\n")
    if agent_status.get("stale_s"):
        sys.stdout.write(
            f"the signed metadata expired {agent_status['stale_s'] / 3600:.1f} hours ago; what is here runs on\n"
        )
    if agent_status.get("last_error"):
        sys.stdout.write(f"last error: {one_line(agent_status['last_error'])}\n")


def _open_walls() -> dict[str, str]:
    """The walls of the cage that do not hold on this machine, and what that means."""
    try:
        return {wall.name: wall.means for wall in report() if not wall.holds}
    except Unavailable as error:
        return {"all": str(error)}


def _end_with(result: CycleResult, *, json: bool) -> None:
    """Print what a cycle came to. Raises `Unavailable` where something could not be had, or cannot be used here."""
    if json:
        _print_json({"models": result.models, "problems": list(result.problems), "refreshed": result.refreshed})
    else:
        _print_models(result.models)
    refused = [
        f"{name}: this device refuses serial {model['wanted']}: {model['refused'][str(model['wanted'])]}"
        for name, model in result.models.items()
        if str(model["wanted"]) in model["refused"] and str(model["wanted"]) not in model["overridden"]
    ]
    if result.problems or refused:
        raise Unavailable("; ".join([*result.problems, *refused]))


def _open(folder: Path, enrol_token_file: Path | None, labels: list[str] | None, **given: Any) -> Agent:
    options = AgentOptions(
        labels=_labels(labels) if labels else None,
        enrol_token=_enrol_token(enrol_token_file),
        progress=daemon.LogLines().download if sys.stderr.isatty() else None,  # somebody waits for it
        **given,
    )
    return Agent.open(folder, options)


def _labels(given: list[str]) -> dict[str, str]:
    return dict(pair_of(each, what="--label") for each in given)


def _enrol_token(path: Path | None) -> str | None:
    if path is None:
        return os.environ.get(ENROL_TOKEN) or None
    try:
        return path.read_text().strip() or None
    except (OSError, UnicodeDecodeError) as error:
        raise UntrustedInput(f"the enrolment token cannot be read from {path}: {reason_of(error)}") from error


def _waiting_words(reports: int) -> str:
    return "1 report waits to be sent" if reports == 1 else f"{reports:,} reports wait to be sent"


def _print_json(value: dict[str, Any]) -> None:
    sys.stdout.write(in_json(documents.encode(value).decode()) + "\n")


def _print_models(models: dict[str, dict[str, Any]]) -> None:
    table = Table("model", "runs", "state", "decided", "because", "waits for", box=None)
    for name, found in models.items():
        runs = f"{found['version']} (serial {found['serial']})" if found["serial"] else "nothing"
        wanted = f"serial {found['wanted']}" if found["wanted"] else "-"
        table.add_row(
            *map(one_line, (name, runs, state_words(found), wanted, found["because"], waits_for_words(found)))
        )
    console = Console(markup=False, emoji=False, width=None if sys.stdout.isatty() else 160)
    console.print(table)
    for name, found in models.items():
        if words := own_words(found):
            sys.stdout.write(f"{one_line(f'{name}: {words}')}\n")
