"""`whimbrel policy`: every policy of a model that was signed: what each changed, and how to have one back."""

from typing import Annotated

import typer

from whimbrel import limits
from whimbrel.cli.confirmation import confirm
from whimbrel.cli.connect import Client, connected, quoted
from whimbrel.cli.options import Yes
from whimbrel.cli.output import Json, print_json, print_table, say, when
from whimbrel.model.documents import encode
from whimbrel.server.admin.views.policies import PolicyChanges, PolicyDetail, PolicyVersionView, RestoredPolicy
from whimbrel.server.admin.views.reason import Reason

app = typer.Typer(
    help="Policies: the signed documents by which devices decide. List, compare and restore them.",
    no_args_is_help=True,
    add_completion=False,
)

Model = Annotated[str, typer.Argument(help="The model's name.")]
_Sequence = typer.Option(min=1, help="The policy's number; see: whimbrel policy list.")


@app.command("list")
@connected
def list_policies(
    client: Client,
    model: Model,
    limit: Annotated[int, typer.Option(min=1, max=limits.POLICIES_SHOWN, help="The newest so many.")] = 20,
    json: Json = False,
) -> None:
    """The policies of a model, newest first, and what each said otherwise than the one before it."""
    policies = client.get(f"models/{quoted(model)}/policies", as_=list[PolicyVersionView], limit=limit)
    if json:
        print_json(policies)
        return
    rows = [
        [each.sequence, when(each.signed_at), each.baseline_version or "none", _words(each.changes)]
        for each in policies
    ]
    print_table(["sequence", "signed (UTC)", "baseline", "what changed"], rows, title="policies")


@app.command("show")
@connected
def show(
    client: Client,
    model: Model,
    sequence: Annotated[int | None, _Sequence] = None,
    json: Json = False,
) -> None:
    """One policy, field by field as it was signed; without --sequence the one that is signed now."""
    detail = client.get(f"models/{quoted(model)}/policies/{sequence or 0}", as_=PolicyDetail)
    if json:
        print_json(detail)
        return
    baseline = detail.versions.get(str(detail.policy.baseline), "no version")
    say(f"policy {detail.sequence} of {model}: the baseline is {baseline}")
    fields = [(name, getattr(detail.policy, name)) for name in detail.policy.__struct_fields__]
    print_table(["field", "value"], [[name, encode(value).decode()] for name, value in fields])


@app.command("diff")
@connected
def diff(
    client: Client,
    model: Model,
    before: Annotated[int, typer.Argument(min=1, help="The number of a policy.")],
    after: Annotated[int | None, typer.Argument(min=1, help="Of another one; else the one signed now.")] = None,
    json: Json = False,
) -> None:
    """What a policy says otherwise than another one. The exit status is 0 also where they say the same."""
    changes = _compared(client, model, before=before, after=after or 0)
    if json:
        print_json(changes)
        return
    say(f"policy {changes.after} of {model} against policy {changes.before}:")
    for sentence in changes.changes or ["both say the same"]:
        say(f"  {sentence}")


@app.command("restore")
@connected
def restore(
    client: Client,
    model: Model,
    sequence: Annotated[int, _Sequence],
    because: Annotated[str, typer.Option(help="Why, for the audit log.")] = "",
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Sign what an earlier policy said, under the next number: its baseline, its settings and what it refused.

    Nothing is restored while something rolls out. Another baseline is gone back to as `whimbrel model rollback` does,
    and no quarantine is lifted.
    """
    if not yes:
        changes = _compared(client, model, before=0, after=sequence).changes
        what = "; ".join(changes) or "it says what is signed now"
        confirm(f"to restore policy {sequence} of {model}", consequence=what, yes=yes, nature="moves its devices")
    done = client.send(
        "POST",
        f"models/{quoted(model)}/policies/{sequence}/restore",
        Reason(because=because),
        as_=RestoredPolicy,
    )
    if json:
        print_json(done)
        return
    say(f"policy {done.sequence} of {model} says what policy {done.restored} said:")
    for sentence in done.changes or ["nothing that devices do changes"]:
        say(f"  {sentence}")
    if done.differs:
        say("and it differs in what does not come back:")
    for sentence in done.differs:
        say(f"  {sentence}")


def _compared(client: Client, model: str, *, before: int, after: int) -> PolicyChanges:
    return client.get(f"models/{quoted(model)}/policies/{before}/changes/{after}", as_=PolicyChanges)


def _words(changes: list[str]) -> str:
    return "; ".join(changes) or "nothing"
