"""`whimbrel model`: lines of versions, their settings and budgets."""

import secrets
from datetime import UTC, datetime
from typing import Annotated, Any

import typer
from securesystemslib.signer import SSlibKey

from whimbrel.cli.connect import Client, connected, quoted
from whimbrel.cli.output import Json, print_json, print_table, say
from whimbrel.errors import Conflict, UntrustedInput, WhimbrelError
from whimbrel.flows.records import ModelSettings
from whimbrel.model.documents import convert, encode, plain
from whimbrel.model.ids import check_name
from whimbrel.model.release import Line
from whimbrel.server.admin.views.models import AddedModel, AliasView, ModelView, NewAlias, NewModel
from whimbrel.server.admin.views.repository import KeysView
from whimbrel.stores.signer import load_signer, make_signer
from whimbrel.stores.tuf_repository import delegate_model, publish_documents
from whimbrel.trust import roles

app = typer.Typer(help="Models: lines of versions.", no_args_is_help=True, add_completion=False)

Refresh = Annotated[float | None, typer.Option(help="Seconds between a device's refreshes (default 300).")]
Report = Annotated[float | None, typer.Option(help="Seconds between a device's reports (default 300).")]
Labels = Annotated[list[str] | None, typer.Option("--report-label", help="A label that devices may report. Repeat it.")]
Hardware = Annotated[str | None, typer.Option(help="The label that names a device's hardware class.")]
Slices = Annotated[
    list[str] | None,
    typer.Option("--slice-label", help="A further label by which harm is found and taken back alone (os). Repeat it."),
]
Size = Annotated[int | None, typer.Option(help="Budget: bytes of the largest variant of a version.")]
Floors = Annotated[list[str] | None, typer.Option("--metric-min", help="Budget: NAME=VALUE a version must reach.")]
Jitter = Annotated[float | None, typer.Option(help="Seconds over which devices spread their start.")]
Bases = Annotated[
    int | None,
    typer.Option(
        help="How many of the newest earlier versions get a direct patch to a new one (default 2); versions that many "
        "devices run get one besides.",
    ),
]


@app.command("add")
@connected
def add(
    client: Client,
    name: Annotated[str, typer.Argument(help="Lower-case letters, digits, - and _.")],
    refresh_s: Refresh = None,
    report_s: Report = None,
    report_label: Labels = None,
    hardware_label: Hardware = None,
    slice_label: Slices = None,
    size_bytes_max: Size = None,
    metric_min: Floors = None,
    start_jitter_s: Jitter = None,
    delta_bases: Bases = None,
    salt: Annotated[
        int | None, typer.Option(help="The layer's salt; random by default. For reproducible tests.")
    ] = None,
    json: Json = False,
) -> None:
    """Add a model: a small ceremony with the offline targets key, which delegates it to a new publisher key."""
    try:
        check_name(name, kind="model")
    except ValueError as error:
        raise UntrustedInput(str(error)) from error
    settings = convert(
        ModelSettings,
        _settings(
            refresh_s,
            report_s,
            report_label,
            hardware_label,
            slice_label,
            size_bytes_max,
            metric_min,
            start_jitter_s,
            delta_bases,
        ),
        what="the settings",
    )
    keys, now = client.keys(), datetime.now(UTC)
    targets_signer = load_signer(keys / "targets.pem")
    publisher_path = keys / f"{roles.publisher_role(name)}.pem"
    if name in {model.name for model in client.get("models", as_=list[ModelView])}:
        raise Conflict(f"model {name!r} exists already; publish to it, or choose another name")
    reuse = publisher_path.exists()  # an earlier try stopped half-way
    publisher = load_signer(publisher_path) if reuse else make_signer(publisher_path)
    line = encode(Line(model=name, sequence=1))
    policy = client.get("keys", as_=KeysView).policy
    body = NewModel(
        name=name,
        targets=delegate_model(
            client.get_bytes("roles/targets"),
            name,
            publisher=publisher.public_key,
            policy=SSlibKey(policy.keyid, policy.keytype, policy.scheme, policy.keyval),
            signer=targets_signer,
            now=now,
        ),
        publisher=publish_documents(None, {roles.line_path(name): line}, signer=publisher, now=now),
        line=line,
        salt=secrets.randbelow(2**53) if salt is None else salt,
        settings=settings,
    )
    try:
        added = client.send("POST", "models", body, as_=AddedModel)
    except WhimbrelError:
        if not reuse:
            publisher_path.unlink()
        raise
    if json:
        print_json(added)
        return
    say(f"added model {name}; its publisher key is {publisher_path}")
    say(f"Next: whimbrel publish --model {name} FILE")


@app.command("list")
@connected
def list_models(client: Client, json: Json = False) -> None:
    """Models, what is their baseline, and what devices run."""
    models = client.get("models", as_=list[ModelView])
    if json:
        print_json(models)
        return
    print_table(
        ["model", "versions", "baseline", "aliases", "devices"],
        [
            [
                model.name,
                model.versions,
                model.baseline_version,
                ", ".join(model.aliases),
                ", ".join(f"{version}: {count}" for version, count in model.devices.items()),
            ]
            for model in models
        ],
        title="models",
    )


@app.command("set")
@connected
def set_model(
    client: Client,
    name: str,
    refresh_s: Refresh = None,
    report_s: Report = None,
    report_label: Labels = None,
    hardware_label: Hardware = None,
    slice_label: Slices = None,
    size_bytes_max: Size = None,
    metric_min: Floors = None,
    start_jitter_s: Jitter = None,
    delta_bases: Bases = None,
    json: Json = False,
) -> None:
    """Change a model's cadence, conditions or budgets. Devices learn of it with their next refresh."""
    changes = _settings(
        refresh_s,
        report_s,
        report_label,
        hardware_label,
        slice_label,
        size_bytes_max,
        metric_min,
        start_jitter_s,
        delta_bases,
    )
    if not changes:
        raise UntrustedInput("nothing to change was named; see: whimbrel model set --help")
    model = client.send("PATCH", f"models/{quoted(name)}", changes, as_=ModelView)
    if json:
        print_json(model)
        return
    say(f"{name}: " + ", ".join(f"{key} = {value}" for key, value in plain(model.settings).items()))


@app.command("alias")
@connected
def alias(client: Client, name: str, alias: str, version: str, json: Json = False) -> None:
    """Give a version a name, such as champion or stable."""
    path = f"models/{quoted(name)}/aliases/{quoted(alias)}"
    named = client.send("PUT", path, NewAlias(version=version), as_=AliasView)
    if json:
        print_json(named)
        return
    say(f"{name}: {alias} is {named.version}")


def _settings(
    refresh_s: float | None,
    report_s: float | None,
    report_label: list[str] | None,
    hardware_label: str | None,
    slice_label: list[str] | None,
    size_bytes_max: int | None,
    metric_min: list[str] | None,
    start_jitter_s: float | None,
    delta_bases: int | None,
) -> dict[str, Any]:
    floors = {}
    for each in metric_min or []:
        metric, equals, value = each.partition("=")
        try:
            floors[metric] = float(value)
        except ValueError:
            equals = ""
        if not equals:
            raise UntrustedInput(f"--metric-min {each!r} is not understood; expected NAME=VALUE, as accuracy=0.84")
    named = {
        "refresh_s": refresh_s,
        "report_s": report_s,
        "report_labels": report_label or None,
        "hardware_label": hardware_label,
        "slice_labels": slice_label or None,
        "size_bytes_max": size_bytes_max,
        "metrics_min": floors or None,
        "delta_bases": delta_bases,
        "conditions": None if start_jitter_s is None else {"start_jitter_s": start_jitter_s},
    }
    return {key: value for key, value in named.items() if value is not None}
