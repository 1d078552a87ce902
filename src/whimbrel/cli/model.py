"""`whimbrel model`: lines of versions, their settings and budgets."""

import secrets
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from whimbrel import limits
from whimbrel.cli.connect import Client, connected, quoted
from whimbrel.cli.floor import first_floor
from whimbrel.cli.key_changes import begin_ceremony
from whimbrel.cli.key_drafts import hand_on
from whimbrel.cli.key_secrets import ask_secret
from whimbrel.cli.model_health import health, monitors
from whimbrel.cli.model_rollback import rollback
from whimbrel.cli.model_settings import checked, with_settings
from whimbrel.cli.output import Json, note, print_json, print_table, say, size_of, when
from whimbrel.cli.role_signers import proven_roles, role_signers
from whimbrel.errors import Conflict, Refused, UntrustedInput, WhimbrelError
from whimbrel.flows.records import ModelSettings, NewSettings
from whimbrel.flows.wording import condition_words, selector_words, signer_words
from whimbrel.model.documents import encode, plain
from whimbrel.model.ids import check_name
from whimbrel.model.local_limits import LocalLimits
from whimbrel.model.release import Line
from whimbrel.server.admin.views.floors import NewFloor
from whimbrel.server.admin.views.models import AddedModel, AliasView, ModelView, NewAlias, NewModel
from whimbrel.server.admin.views.repository import KeysView
from whimbrel.stores.proven_roles import ProvenRoles
from whimbrel.stores.signed_metadata import role_keys
from whimbrel.stores.signer import Key, SSlibKey, load_signer, make_signer
from whimbrel.stores.tuf_repository import delegate_model, publish_documents
from whimbrel.trust import roles

app = typer.Typer(help="Models: lines of versions.", no_args_is_help=True, add_completion=False)

Name = Annotated[str, typer.Argument(help="The model's name.")]


@app.command("add")
@connected
@with_settings
def add(
    client: Client,
    name: Annotated[str, typer.Argument(help="Lower-case letters, digits, - and _.")],
    settings: dict[str, Any],
    salt: Annotated[
        int | None, typer.Option(help="The layer's salt; random by default. For reproducible tests.")
    ] = None,
    floor_expires_days: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=limits.FLOOR_DAYS,
            help="Devices take new versions only while a signature is fresh that holds so many days (whimbrel floor).",
        ),
    ] = None,
    draft: Annotated[
        Path | None,
        typer.Option(
            "--draft", help="Where several people sign: write a draft, and add the model when it is submitted."
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Add a model: a small ceremony with the offline targets key, which delegates it to a new publisher key."""
    try:
        check_name(name, kind="model")
    except ValueError as error:
        raise UntrustedInput(str(error)) from error
    complete = checked(ModelSettings, settings)
    keys, now = client.keys(), datetime.now(UTC)
    publisher_path = keys / f"{roles.publisher_role(name)}.pem"
    if name in {model.name for model in client.get("models", as_=list[ModelView])}:
        raise Conflict(f"model {name!r} exists already; publish to it, or choose another name")
    reuse = publisher_path.exists()  # an earlier try stopped half-way
    publisher = load_signer(publisher_path, secrets=ask_secret) if reuse else make_signer(publisher_path)
    if draft is not None:
        ceremony = begin_ceremony(client)
        ceremony.delegate(name, publisher=publisher.public_key, policy=_policy_key(client))
        hand_on(ceremony.draft(f"add model {name}"), draft, json=json)
        return
    line, proven = encode(Line(model=name, sequence=1)), proven_roles(client)
    try:
        targets, floor = _delegation(client, proven, name, publisher.public_key, floor_days=floor_expires_days, now=now)
        body = NewModel(
            name=name,
            targets=targets,
            floor=floor,
            publisher=publish_documents(None, {roles.line_path(name): line}, signer=publisher, now=now),
            line=line,
            salt=secrets.randbelow(2**53) if salt is None else salt,
            settings=complete,
        )
        added = client.send("POST", "models", body, as_=AddedModel)
        proven.remember({roles.TARGETS: targets} if targets else {})
    except WhimbrelError:
        if not reuse:
            publisher_path.unlink()
        raise
    if json:
        print_json(added)
        return
    _warn(added.warnings)
    say(f"added model {name}; its publisher key is {publisher_path}")
    if floor is not None:
        say(f"Its floor holds for {floor_expires_days} days; sign it anew before with: whimbrel floor renew {name}")
    say(f"Next: whimbrel publish --model {name} FILE")


def _delegation(
    client: Client, proven: ProvenRoles, name: str, publisher: Key, *, floor_days: int | None, now: datetime
) -> tuple[bytes, NewFloor | None]:
    """The next targets role, signed, and the model's first floor; no role where people signed it before, as a draft."""
    current = proven.role(roles.TARGETS)
    if roles.publisher_role(name) in role_keys(current):
        if floor_days is not None:
            raise Refused(f"{name} is delegated already; add it, and then: whimbrel floor require {name}")
        return b"", None
    signer, *others = role_signers(client, proven, roles.TARGETS)
    policy = _policy_key(client)
    delegated = delegate_model(current, name, publisher=publisher, policy=policy, signer=signer, others=others, now=now)
    if floor_days is None:
        return delegated, None
    return first_floor(delegated, name, client.keys(), days=floor_days, targets_signers=[signer, *others], now=now)


def _policy_key(client: Client) -> Key:
    policy = client.get("keys", as_=KeysView).policy
    return SSlibKey(policy.keyid, policy.keytype, policy.scheme, policy.keyval)


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


@app.command("show")
@connected
def show(client: Client, name: Name, json: Json = False) -> None:
    """A model's baseline, names, devices and settings: cadence, budgets, conditions."""
    model = client.get(f"models/{quoted(name)}", as_=ModelView)
    if json:
        print_json(model)
        return
    _tell(model)


@app.command("set")
@connected
@with_settings
def set_model(client: Client, name: Name, settings: dict[str, Any], json: Json = False) -> None:
    """Change a model's cadence, conditions or budgets: what is named changes, and the rest stays.

    whimbrel model set detector --unmetered --charging --window "22:00-06:00 local"

    Devices learn of it with their next refresh.
    """
    if not settings:
        raise UntrustedInput("nothing to change was named; see: whimbrel model set --help")
    checked(NewSettings, settings)  # the same check as the server's, in words for people
    model = client.send("PATCH", f"models/{quoted(name)}", settings, as_=ModelView)
    if json:
        print_json(model)
        return
    _tell(model)
    _warn(model.warnings)


@app.command("alias")
@connected
def alias(
    client: Client,
    name: Name,
    alias: Annotated[str, typer.Argument(help="The name to give.")],
    version: Annotated[str, typer.Argument(help="Calendar or semantic version, serial, or another alias.")],
    json: Json = False,
) -> None:
    """Give a version a name, such as champion or stable."""
    path = f"models/{quoted(name)}/aliases/{quoted(alias)}"
    named = client.send("PUT", path, NewAlias(version=version), as_=AliasView)
    if json:
        print_json(named)
        return
    say(f"{name}: {alias} is {named.version}")


def _limit_words(local: LocalLimits | None) -> str:
    """By which limits a device goes back without a server."""
    given = plain(local) if local is not None else {}
    words = ", ".join(f"{name}={value}" for name, value in given.items())
    return f"devices go back by {words}" if words else f"devices go back after {limits.CRASH_LOOP} crashes in a row"


app.command("rollback")(rollback)
app.command("health")(health)
app.command("monitors")(monitors)


def _warn(warnings: list[str]) -> None:
    for each in warnings:
        note(f"Note: {each}")


def _tell(model: ModelView) -> None:
    settings = model.settings
    budgets = [f"a variant has at most {size_of(settings.size_bytes_max)}"] if settings.size_bytes_max else []
    budgets += [f"{metric} is at least {least:g}" for metric, least in settings.metrics_min.items()]
    without = "none: whimbrel rollout start brings one to devices" if model.versions else "none: publish a version"
    often = f" ({settings.rollout_refresh_s:g} s while something rolls out, and a day longer)"
    rows = {
        "added": f"{when(model.created_at)} UTC",
        "versions": str(model.versions),
        "baseline": model.baseline_version or without,
        "aliases": ", ".join(f"{alias} (serial {serial})" for alias, serial in sorted(model.aliases.items())) or "none",
        "devices": ", ".join(f"{version}: {count}" for version, count in model.devices.items()) or "none yet",
        "conditions": "; ".join(condition_words(settings.conditions)) or "none: devices fetch and activate at once",
        "cadence": f"devices refresh every {settings.refresh_s:g} s"
        f"{often if settings.rollout_refresh_s < settings.refresh_s else ''} and report every {settings.report_s:g} s",
        "labels": f"{', '.join(settings.report_labels) or 'none'} may be reported; {settings.hardware_label} names the "
        f"hardware class; slices: {', '.join(settings.slice_labels) or 'none'}",
        "budgets": "; ".join(budgets) or "none",
        "signer": "none is demanded" if settings.model_signer is None else signer_words(settings.model_signer),
        "objectives": "; ".join(f"{each.words}, {each.action.replace('_', ' ')}" for each in settings.objectives)
        or "none",
        "anomalies": settings.anomalies.replace("_", " "),
        "secrecy": f"sealed: {selector_words(settings.sealed_for)} gets the keys, by labels that the server gives"
        if settings.sealed
        else "none: whoever can fetch an artifact has it",
        "alone": _limit_words(settings.local_limits),
        "patches": f"from the newest {settings.delta_bases} earlier versions, and from those that many devices run",
        "if revoked": "devices with nowhere to go keep it"
        if settings.on_revoked == "keep"
        else "devices with nowhere to go stop it",
    }
    say(model.name)
    for head, words in rows.items():
        say(f"  {head:<11}{words}")
