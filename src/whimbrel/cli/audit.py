"""`whimbrel audit`: look at the log of who did what, take it elsewhere, and check that nobody changed it.

1. Without a verb it lists. `verify` reads the whole chain, of a server or of a file, and computes every hash itself: it
   believes neither.
2. `anchor` prints what has to be stored where whoever can write the database cannot. `verify --anchor` reads it again.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from typer.core import TyperGroup

from whimbrel import limits
from whimbrel.cli.connect import Client, connected, connected_unless
from whimbrel.cli.options import OnlyModel
from whimbrel.cli.output import Json, counted, json_line, print_json, print_table, say, when
from whimbrel.durable import fsync, fsync_folder, temporary_for
from whimbrel.errors import NotFound, UntrustedInput
from whimbrel.flows.audit_chain import (
    ALERT_FORMAT,
    Anchor,
    ChainCheck,
    ChainedEntry,
    Formatted,
    SentAnchor,
    check_chain,
    read_line,
)
from whimbrel.flows.wording import move_words, selector_words
from whimbrel.model.documents import parse
from whimbrel.model.selector import EVERYONE
from whimbrel.server.admin.views.repository import AuditEntry


class _ListsByDefault(TyperGroup):
    """`whimbrel audit --model X` lists, as `whimbrel audit list --model X` does."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not args or (args[0] not in self.commands and args[0].startswith("-") and args[0] != "--help"):
            args = ["list", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=_ListsByDefault,
    help="Who did what, when, why and on what evidence. Without a verb: list the newest entries.\n\n"
    "Every entry holds the hash of the one before it, so nothing is changed or taken out without a trace. Store an "
    "anchor elsewhere, every day, and nobody can write the whole log anew or cut it off either: "
    "`whimbrel audit anchor >> anchors.jsonl`, and later `whimbrel audit verify --anchor anchors.jsonl`.",
    add_completion=False,
)


@app.command("list")
@connected
def list_entries(
    client: Client,
    model: OnlyModel = None,
    rollout: Annotated[str | None, typer.Option(help="Only this rollout's entries.")] = None,
    device: Annotated[str | None, typer.Option(help="Only this device's entries.")] = None,
    action: Annotated[str | None, typer.Option(help="Only this action, such as fail_sign_in.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000)] = 50,
    json: Json = False,
) -> None:
    """Who did what, when, why and on what evidence. Newest first."""
    entries = client.get(
        "audit", as_=list[AuditEntry], model=model, rollout=rollout, device=device, action=action, limit=limit
    )
    if json:
        print_json(entries)
        return
    rows = [
        [
            when(entry.at),
            entry.actor,
            _what(entry),
            entry.model,
            entry.rollout or entry.device,
            entry.because,
        ]
        for entry in entries
    ]
    print_table(["when (UTC)", "who", "what", "model", "rollout or device", "because"], rows)


def _what(entry: AuditEntry) -> str:
    """The action; of one that touched some devices alone, with these."""
    devices = entry.evidence.get("devices")
    some = isinstance(devices, str) and devices != selector_words(EVERYONE)
    return f"{move_words(entry.action)}: {devices}" if some else move_words(entry.action)


@app.command("export")
@connected
def export(
    client: Client,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="A file; else standard output.")] = None,
    after: Annotated[int, typer.Option(min=0, help="Only entries after this number, for a log taken in parts.")] = 0,
    json: Json = False,
) -> None:
    """Write the log as JSON lines, oldest first, one entry a line, with every field that the hashes are over.

    `whimbrel audit verify FILE` checks such a file without a server. --json says what was written, and needs -o.
    """
    if output is None:
        if json:
            raise UntrustedInput("--json tells of the file that was written; name it with -o FILE")
        for entry in _pages(client, after=after):
            print_json(entry)
        return
    count, last = 0, None
    with _written(output) as write:
        for entry in _pages(client, after=after):
            write(json_line(entry).encode())
            count, last = count + 1, entry
    if json:
        print_json(
            {
                "file": str(output),
                "entries": count,
                "last": last.sequence if last else None,
                "hash": last.hash if last else None,
            }
        )
        return
    say(f"wrote {counted(count, 'entry', plural='entries')} to {output}{f', up to {last.sequence}' if last else ''}")


@app.command("anchor")
@connected
def anchor(client: Client) -> None:
    """Print an anchor, as one line of JSON: the newest entry's number and hash, the time, and the server's signature.

    Add it to a file on another machine, every day: `whimbrel audit anchor >> anchors.jsonl`. Whoever can write the
    database can write the whole log anew, with hashes that fit; what they cannot write is that file.
    """
    print_json(client.get("audit/anchor", as_=Anchor))


@app.command("verify")
@connected_unless("file")
def verify(
    client: Client | None,
    file: Annotated[Path | None, typer.Argument(help="An export; without it the server's log is read.")] = None,
    anchors: Annotated[
        list[Path] | None,
        typer.Option("--anchor", help="A file of anchors, one a line, that were stored elsewhere. Repeat it."),
    ] = None,
    root: Annotated[
        Path | None,
        typer.Option(help="The repository's root.json: the anchors' signatures are checked with its timestamp keys."),
    ] = None,
    after: Annotated[
        int, typer.Option(min=0, help="An export that was made with --after N begins behind entry N; else with 1.")
    ] = 0,
    json: Json = False,
) -> None:
    """Compute every hash of the log anew, and name the first entry that does not fit. The exit status is 1 then.

    With anchors it is proven, too, that nothing up to the newest of them was written anew or cut off. Without any,
    somebody who can write the database may have done that.
    """
    given = [each for path in anchors or () for each in read_anchors(path)]
    if root is not None:
        _check_signatures(given, root)
    entries = read_export(file) if client is None and file is not None else _pages(client, after=0)
    check = _begun(check_chain(entries, anchors=given), after=after if file is not None else 0)
    if json:
        print_json(check)
    else:
        _tell(check, anchors=given, signed=root is not None)
    if check.problem is not None:
        raise typer.Exit(1)


def _begun(check: ChainCheck, *, after: int) -> ChainCheck:
    """The check, with a problem where the entries do not begin where they should: their beginning was taken away."""
    if check.problem is not None or check.first == after + 1:
        return check
    if check.first is None:
        return msgspec.structs.replace(check, problem="there is no entry at all; expected at least the first one")
    return msgspec.structs.replace(
        check,
        problem=f"entry {after + 1} is missing: it begins at {check.first}; checked as a part with --after "
        f"{check.first - 1}",
    )


def _tell(check: ChainCheck, *, anchors: list[Anchor], signed: bool) -> None:
    many = f"{counted(check.entries, 'entry', plural='entries')} fit{'s' * (check.entries == 1)}"
    if check.problem is not None:
        say(f"the log does NOT fit: {check.problem} ({many} before it)")
        return
    whole = f"; they begin at {check.first}, and nothing is said of those before it" if (check.first or 1) > 1 else ""
    say(f"{many}{f', up to {check.last} ({check.hash[:16]}...)' if check.last else ''}{whole}")
    if not anchors:
        say("no anchor was given: whoever can write the database may have written all of it anew (see: audit anchor)")
        return
    newest = max(anchors, key=lambda each: each.sequence)
    proof = "signed" if signed else "signatures not checked, give --root root.json"
    fit = "1 anchor fits" if len(anchors) == 1 else f"{len(anchors):,} anchors fit"
    say(f"{fit} ({proof}): nothing up to entry {newest.sequence} ({when(newest.at)} UTC) was changed or cut off since")


def _check_signatures(anchors: Iterable[Anchor], root: Path) -> None:
    from whimbrel.stores.anchors import check_signature  # half a second of TUF, which only this needs

    content = b"".join(_lines(root))
    for each in anchors:
        check_signature(each, content)


def _pages(client: Client | None, *, after: int) -> Iterator[ChainedEntry]:
    """The server's chain, oldest first."""
    while client is not None:
        page = client.get("audit/chain", as_=list[ChainedEntry], after=after, limit=limits.AUDIT_PAGE)
        yield from page
        if not page:
            return
        after = page[-1].sequence


def read_export(path: Path) -> Iterator[ChainedEntry]:
    """The entries of an exported file. Raises `UntrustedInput` for a line that is no entry, `NotFound` for no file."""
    for number, line in enumerate(_lines(path), start=1):
        yield read_line(line, number=number)


def read_anchors(path: Path) -> list[Anchor]:
    """The anchors of a file. Raises `UntrustedInput` for a line that is no anchor, and where there is none."""
    anchors: list[Anchor] = []
    for number, line in enumerate(_lines(path), start=1):
        if len(anchors) == limits.AUDIT_ANCHORS:
            raise UntrustedInput(f"{path} has more than {limits.AUDIT_ANCHORS} anchors; give the newest")
        what = f"line {number} of {path}"
        kind = parse(Formatted, line, what=what)
        if kind.format != ALERT_FORMAT:
            anchors.append(parse(Anchor, line, what=what))
        elif kind.moment == "audit_anchor":  # a receiver may keep other alerts in the same file
            anchors.append(parse(SentAnchor, line, what=what).evidence)
    if not anchors:
        raise UntrustedInput(f"{path} holds no anchor; expected lines that `whimbrel audit anchor` printed")
    return anchors


def _lines(path: Path) -> Iterator[bytes]:
    """The lines of a file that are not empty, each within the bound."""
    try:
        with path.open("rb") as file:
            while line := file.readline(limits.AUDIT_LINE_BYTES + 1):
                if len(line) > limits.AUDIT_LINE_BYTES:
                    raise UntrustedInput(f"{path} has a line of over {limits.AUDIT_LINE_BYTES} bytes; is it an export?")
                if line.strip():
                    yield line
    except FileNotFoundError:
        raise NotFound(f"there is no file {path}") from None
    except IsADirectoryError:
        raise UntrustedInput(f"{path} is a folder; give a file of JSON lines") from None


@contextmanager
def _written(path: Path) -> Iterator[Callable[[bytes], object]]:
    """Write a file that appears as a whole or not at all."""
    temporary = temporary_for(path)
    try:
        with temporary.open("xb") as file:
            yield file.write
            file.flush()
            fsync(file.fileno())
        temporary.replace(path)
        fsync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)
