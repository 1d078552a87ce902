"""`whimbrel floor`: a word that lives for days, and without which devices take nothing new of a model."""

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from securesystemslib.signer import Key

from whimbrel import limits
from whimbrel.cli.confirmation import confirm
from whimbrel.cli.connect import Client, connected, quoted
from whimbrel.cli.key_drafts import say_waits
from whimbrel.cli.key_secrets import ask_secret
from whimbrel.cli.options import Yes
from whimbrel.cli.output import Json, print_json, print_table, say, when
from whimbrel.cli.role_signers import proven_line, proven_roles, role_signers
from whimbrel.errors import Conflict, NotFound, WhimbrelError
from whimbrel.flows.publishing.set_floor import FloorState
from whimbrel.model.release import Floor, Line
from whimbrel.server.admin.views.floors import LiftedFloor, NewFloor
from whimbrel.server.admin.views.repository import KeyChangeView
from whimbrel.stores.floor_roles import delegate_floor, sign_floor
from whimbrel.stores.floor_roles import lift_floor as without_floor
from whimbrel.stores.proven_roles import ProvenRoles
from whimbrel.stores.signed_metadata import read_metadata
from whimbrel.stores.signer import Signer, load_signer, make_signer
from whimbrel.trust import roles

app = typer.Typer(
    help="Floors: devices take a new version only while a short-lived signature says that they know the newest line.",
    no_args_is_help=True,
    add_completion=False,
)

Name = Annotated[str, typer.Argument(help="The model's name.")]


@app.command("require")
@connected
def require(
    client: Client,
    name: Name,
    expires_days: Annotated[
        int,
        typer.Option(
            min=1,
            max=limits.FLOOR_DAYS,
            help="Days that a signature holds: a revoked version reaches no new device later.",
        ),
    ],
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Let devices take new versions of a model only while its floor is fresh: a small ceremony with the targets key.

    whimbrel floor require detector --expires-days 30

    It makes a key, floor-<model>.pem. That key cannot sign a version or a line, so a pipeline may hold it and renew the
    floor with `whimbrel floor renew`. Where nobody renews it, devices go on with what they run, and take nothing new.
    """
    keys, now, proven = client.keys(), datetime.now(UTC), proven_roles(client)
    targets = role_signers(client, proven, roles.TARGETS)
    if floor_of(client, name) is not None:
        raise Conflict(f"{name} has a floor already; sign it anew with: whimbrel floor renew {name}")
    client.get(f"models/{quoted(name)}/line", as_=Line)  # before anybody is asked: is there such a model?
    confirm(
        f"to require a floor of {name}",
        consequence="where nobody renews it in time, devices take nothing new of this model",
        nature="changes what devices believe",
        yes=yes,
    )
    place = keys / f"{roles.floor_role(name)}.pem"
    is_new = not place.exists()
    signer = make_signer(place) if is_new else load_signer(place, secrets=ask_secret)
    try:
        delegated = delegate_floor(proven.role(roles.TARGETS), name, floor=_key(signer), signers=targets, now=now)
        state = _sign(client, proven, name, [signer], days=expires_days, targets=delegated, now=now)
    except WhimbrelError:
        if is_new:
            place.unlink()
        raise
    if json:
        print_json(state)
        return
    say(f"devices take new versions of {name} only while its floor is fresh: until {when(state.expires_at)} UTC")
    say(f"Its key is {place}. Before that day, where the key is: whimbrel floor renew {name}")


@app.command("renew")
@connected
def renew(
    client: Client,
    names: Annotated[list[str] | None, typer.Argument(help="Models; all with a floor unless given.")] = None,
    if_due: Annotated[
        bool,
        typer.Option("--if-due", help="Only where a third of its life is left, or the line is newer: for pipelines."),
    ] = False,
    expires_days: Annotated[
        int | None,
        typer.Option(min=1, max=limits.FLOOR_DAYS, help="Days that it holds; as many as before unless given."),
    ] = None,
    json: Json = False,
) -> None:
    """Sign floors anew with their keys: the newest line of each model holds for so many days more.

    whimbrel floor renew --if-due          # once a day, in a pipeline that holds the floor keys
    """
    floors = [floor_of(client, name) for name in names] if names else _floors(client)
    renewed, proven = [], proven_roles(client)
    for name, floor in zip(names or [each.model for each in floors if each is not None], floors, strict=True):
        if floor is None:
            raise NotFound(f"{name} has no floor; begin with: whimbrel floor require {name} --expires-days 30")
        if if_due and not floor.is_due(time.time()):
            continue
        signers = role_signers(client, proven, roles.floor_role(name))
        days = expires_days or floor.days
        renewed.append(_sign(client, proven, name, signers, days=days, targets=None, now=datetime.now(UTC)))
    if json:
        print_json(renewed)
        return
    for state in renewed:
        say(f"the floor of {state.model} holds until {when(state.expires_at)} UTC (line {state.sequence})")
    if not renewed:
        say("no floor is due" if floors else "no model has a floor")


@app.command("show")
@connected
def show(
    client: Client,
    name: Annotated[str | None, typer.Argument(help="A model; all unless given.")] = None,
    json: Json = False,
) -> None:
    """Until when the floors of models hold."""
    floors = _floors(client) if name is None else [each for each in [floor_of(client, name)] if each is not None]
    if json:
        print_json(floors)
        return
    now = time.time()
    rows = [
        [each.model, each.line_sequence, f"{each.days} days", when(each.expires_at), _state(each, now)]
        for each in floors
    ]
    print_table(["model", "line", "holds for", "until (UTC)", "state"], rows, title="floors")


@app.command("lift")
@connected
def lift(
    client: Client,
    name: Name,
    because: Annotated[str, typer.Option("--because", help="The reason, for the audit log.")] = "",
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Ask for no floor of a model any more, with the targets key."""
    if floor_of(client, name) is None:
        raise NotFound(f"{name} has no floor; see: whimbrel floor show")
    proven = proven_roles(client)
    targets = role_signers(client, proven, roles.TARGETS)
    confirm(
        f"to lift the floor of {name}",
        consequence="who holds the online keys can bring revoked versions to new devices again",
        nature="changes what devices believe",
        yes=yes,
    )
    body = without_floor(proven.role(roles.TARGETS), name, signers=targets, now=datetime.now(UTC))
    order = LiftedFloor(targets=body, because=because)
    done = client.send("POST", f"models/{quoted(name)}/floor/lift", order, as_=KeyChangeView)
    if done.proposal is None:
        proven.remember({roles.TARGETS: body})
    if json:
        print_json({"model": name, "floor": None, "proposal": done.proposal})
        return
    if done.proposal is not None:
        say_waits(done.proposal)
        return
    say(f"{name} has no floor any more")


def first_floor(
    targets: bytes, name: str, keys: Path, *, days: int, targets_signers: Sequence[Signer], now: datetime
) -> tuple[bytes, NewFloor]:
    """What a new model needs to have a floor from its first day: `targets`, which delegates it, and its first floor."""
    place = keys / f"{roles.floor_role(name)}.pem"
    signer = load_signer(place, secrets=ask_secret) if place.exists() else make_signer(place)
    delegated = delegate_floor(targets, name, floor=_key(signer), signers=targets_signers, now=now, same_version=True)
    document, signed = sign_floor(Floor(model=name, sequence=1, days=days), version=1, signers=[signer], now=now)
    return delegated, NewFloor(floor=document, role=signed)


def _sign(
    client: Client,
    proven: ProvenRoles,
    name: str,
    signers: Sequence[Signer],
    *,
    days: int,
    targets: bytes | None,
    now: datetime,
) -> FloorState:
    role, line = roles.floor_role(name), proven_line(client, proven, name)
    try:  # nobody delegates a floor that is required anew: only its number counts
        before = proven.role(role) if targets is None else client.get_bytes(f"roles/{role}")
        version = read_metadata(before, what=role).signed.version
    except NotFound:
        version = 0
    floor = Floor(model=name, sequence=line.sequence, days=days)
    document, signed = sign_floor(floor, version=version + 1, signers=signers, now=now)
    body = NewFloor(floor=document, role=signed, targets=targets)
    state = client.send("PUT", f"models/{quoted(name)}/floor", body, as_=FloorState)
    proven.remember({role: signed} | ({} if targets is None else {roles.TARGETS: targets}))
    return state


def floor_of(client: Client, name: str) -> FloorState | None:
    """The floor of a model; None where it has none."""
    return next((floor for floor in _floors(client) if floor.model == name), None)


def _floors(client: Client) -> list[FloorState]:
    return client.get("floors", as_=list[FloorState])


def _key(signer: Signer) -> Key:
    key: Key = signer.public_key
    return key


def _state(floor: FloorState, now: float) -> str:
    if floor.expires_at <= now:
        return "expired: devices take nothing new"
    if floor.sequence < floor.line_sequence:
        return "of an older line: renew it"
    return "renew it" if floor.is_due(now) else "fresh"
