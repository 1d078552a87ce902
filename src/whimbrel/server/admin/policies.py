"""The admin API's routes for the versions of a policy: listed, shown, compared and restored."""

from functools import partial
from itertools import pairwise
from typing import Annotated

from litestar import get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, JSONBody, QueryParameter
from litestar.status_codes import HTTP_200_OK

from whimbrel import limits
from whimbrel.errors import NotFound
from whimbrel.flows.accounts.permissions import Caller, Permission
from whimbrel.flows.publishing.policy_changes import policy_changes
from whimbrel.flows.publishing.restore_policy import restore_policy
from whimbrel.flows.publishing.set_line import line_of
from whimbrel.flows.records import VersionRecord
from whimbrel.model.documents import parse
from whimbrel.policy.policy import Policy
from whimbrel.server.admin.operations import Operations
from whimbrel.server.admin.views.policies import PolicyChanges, PolicyDetail, PolicyVersionView, RestoredPolicy
from whimbrel.server.admin.views.reason import Reason
from whimbrel.stores.transaction import Stores
from whimbrel.trust import roles


@get(
    "/models/{model:str}/policies",
    permission=Permission.READ,
    summary="The newest policies that were signed, newest first, and what each changed",
)
async def list_policies(
    operations: NamedDependency[Operations],
    namespace: FromPath[str],
    model: FromPath[str],
    limit: Annotated[int, QueryParameter(ge=1, le=limits.POLICIES_SHOWN)] = 20,
) -> list[PolicyVersionView]:
    """The newest policies of a model."""

    def work(stores: Stores) -> list[PolicyVersionView]:
        versions = _versions(stores, model)
        signed = stores.policies.newest(model, limit=limit + 1)  # the oldest one is compared with the one before it
        before = {each.policy.sequence: older.policy for each, older in pairwise(signed)}
        return [
            PolicyVersionView(
                model=model,
                sequence=each.policy.sequence,
                signed_at=each.at,
                baseline_version=_baseline(each.policy, versions),
                changes=list(policy_changes(before.get(each.policy.sequence), each.policy, versions)),
            )
            for each in signed[:limit]
        ]

    return await operations.do(namespace, work)


@get("/models/{model:str}/policies/{sequence:int}", permission=Permission.READ, summary="One policy as it was signed")
async def show_policy(
    operations: NamedDependency[Operations], namespace: FromPath[str], model: FromPath[str], sequence: FromPath[int]
) -> PolicyDetail:
    """The policy of a sequence number; 0: the one that is signed now."""

    def work(stores: Stores) -> PolicyDetail:
        versions = _versions(stores, model)
        policy = policy_of(stores, model, sequence)
        names = {str(serial): f"{v.version} ({v.semantic_version})" for serial, v in versions.items()}
        return PolicyDetail(model=model, sequence=policy.sequence, versions=names, policy=policy)

    return await operations.do(namespace, work)


@get(
    "/models/{model:str}/policies/{before:int}/changes/{after:int}",
    permission=Permission.READ,
    summary="What one says otherwise than another",
)
async def compare_policies(
    operations: NamedDependency[Operations],
    namespace: FromPath[str],
    model: FromPath[str],
    before: FromPath[int],
    after: FromPath[int],
) -> PolicyChanges:
    """What the policy `after` says otherwise than the policy `before`; 0: the one that is signed now."""

    def work(stores: Stores) -> PolicyChanges:
        versions = _versions(stores, model)
        older, newer = (policy_of(stores, model, sequence) for sequence in (before, after))
        changes = list(policy_changes(older, newer, versions))
        return PolicyChanges(model=model, before=older.sequence, after=newer.sequence, changes=changes)

    return await operations.do(namespace, work)


@post(
    "/models/{model:str}/policies/{sequence:int}/restore",
    permission=Permission.RELEASE,
    status_code=HTTP_200_OK,
    summary="Sign what an earlier policy said, with the next sequence number",
)
async def restore(
    *,
    operations: NamedDependency[Operations],
    caller: NamedDependency[Caller],
    namespace: FromPath[str],
    model: FromPath[str],
    sequence: FromPath[int],
    data: JSONBody[Reason],
) -> RestoredPolicy:
    """Restore the content of a policy."""

    def change(stores: Stores) -> tuple[Policy, Policy]:
        stores.registry.model(model)  # says which there are, where it is none of them
        before, wanted = policy_of(stores, model, 0), policy_of(stores, model, sequence)
        lines = partial(line_of, stores.registry, stores.roles)
        restore_policy(
            stores.registry,
            model,
            wanted,
            lines=lines,
            because=data.because,
            actor=caller.account,
            now=operations.now(),
        )
        return before, wanted

    before, wanted = await operations.change(namespace, change)

    def view(stores: Stores) -> RestoredPolicy:
        versions, policy = _versions(stores, model), policy_of(stores, model, 0)
        return RestoredPolicy(
            model=model,
            restored=wanted.sequence,
            sequence=policy.sequence,
            changes=list(policy_changes(before, policy, versions)),
            differs=list(policy_changes(wanted, policy, versions)),
        )

    return await operations.do(namespace, view)


POLICY_ROUTES = (list_policies, show_policy, compare_policies, restore)


def policy_of(stores: Stores, model: str, sequence: int) -> Policy:
    """A policy by its number; 0: the one that is signed now. Raises `NotFound`."""
    if sequence:
        return stores.policies.one(model, sequence)
    signed = stores.roles.current_target(roles.policy_role(model), roles.policy_path(model))
    if signed is None:
        raise NotFound(f"no policy of {model} is signed yet")
    return parse(Policy, signed, what="the signed policy")


def _versions(stores: Stores, model: str) -> dict[int, VersionRecord]:
    return {version.serial: version for version in stores.registry.versions(stores.registry.model(model).name)}


def _baseline(policy: Policy, versions: dict[int, VersionRecord]) -> str | None:
    version = versions.get(policy.baseline or 0)
    return None if version is None else f"{version.version} ({version.semantic_version})"
