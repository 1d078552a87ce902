"""The admin API's routes for keys: who may sign what, changes that people signed, and keys that the server makes.

No private key travels: people sign on their machines, and the server's own keys are made in its folder.
"""

import asyncio
from functools import partial

from litestar import get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, JSONBody
from litestar.status_codes import HTTP_200_OK, HTTP_201_CREATED

from whimbrel import limits
from whimbrel.errors import NotFound, Refused
from whimbrel.flows.accounts.permissions import Caller, Permission
from whimbrel.flows.audit import audit
from whimbrel.model.documents import plain
from whimbrel.server.admin.key_proposals import change_or_propose
from whimbrel.server.admin.operations import Operations
from whimbrel.server.admin.views.repository import (
    KeyChangeView,
    KeysView,
    KeyView,
    NewKeyChange,
    NewOnlineKey,
    NewSealingKey,
    NewTokenKey,
    ReplacedSealingKeyView,
    RoleStatesView,
    RoleStateView,
    SealingKeyView,
    TokenKeyView,
)
from whimbrel.server.device_token_keys import DeviceTokenKeys
from whimbrel.stores.kept_release_keys import Replacement, make_sealing_key, replace_sealing_key
from whimbrel.stores.key_folder import KeyFolder
from whimbrel.stores.online_signers import OnlineSigners
from whimbrel.stores.signed_metadata import role_keys, role_public_keys
from whimbrel.stores.signer import Key, PublicKey, make_signer
from whimbrel.stores.transaction import Stores
from whimbrel.trust import roles
from whimbrel.trust.role_keys import RoleKeys, expiry_warning, short

_POLICY = "policy"


@get("/keys", permission=Permission.READ, summary="The online keys that a model is delegated to")
async def list_keys(operations: NamedDependency[Operations], namespace: FromPath[str]) -> KeysView:
    """The public keys that `model add` writes into the targets role."""
    context = operations.context

    def work(stores: Stores) -> KeysView:
        return KeysView(policy=_view(policy_key(stores, context.signers, context.online_keys)))

    return await operations.do(namespace, work)


@get("/keys/roles", permission=Permission.READ, summary="Who may sign each role, and until when it is valid")
async def list_role_states(operations: NamedDependency[Operations], namespace: FromPath[str]) -> RoleStatesView:
    """The roles with their keys, thresholds and ends."""
    context = operations.context
    return await operations.do(
        namespace, lambda stores: role_states(stores, folder=context.online_keys, now=operations.now())
    )


@post(
    "/keys/online",
    permission=Permission.KEYS,
    status_code=HTTP_201_CREATED,
    summary="Have the server make a key for an online role",
)
async def make_online_key(
    operations: NamedDependency[Operations],
    caller: NamedDependency[Caller],
    namespace: FromPath[str],
    data: JSONBody[NewOnlineKey],
) -> KeyView:
    """A new key in the server's folder. It signs nothing until a root, or a targets role, names it."""
    folder = operations.context.online_keys

    def work(stores: Stores) -> KeyView:
        held = folder.held()
        if len(held) >= limits.KEYS_OF_A_FOLDER:
            raise Refused(f"{folder.path} holds {len(held)} keys already; move old ones away first")
        number = 1 + sum(each.name.startswith(data.role) for each in held.values())
        while any(each.name == f"{data.role}-{number}" for each in held.values()):
            number += 1
        key = make_signer(folder.path / f"{data.role}-{number}.pem").public_key
        audit(
            stores.registry,
            actor=caller.account,
            action="make key",
            because=f"a key for {data.role}, which signs nothing yet",
            now=operations.now(),
            evidence={"role": data.role, "keyid": key.keyid},
        )
        return _view(key)

    return await operations.do(namespace, work)


@post(
    "/keys/changes",
    permission=Permission.KEYS,
    status_code=HTTP_200_OK,
    summary="Change who may sign: roles that people signed",
    request_max_body_size=limits.ADMIN_DOCUMENT_BYTES,
)
async def take_key_change(
    operations: NamedDependency[Operations],
    caller: NamedDependency[Caller],
    namespace: FromPath[str],
    data: JSONBody[NewKeyChange],
) -> KeyChangeView:
    """Take the next versions of root, targets, publishers and floors, all or none; or keep them for a second person.

    Online roles are signed anew at once.
    """
    await asyncio.to_thread(operations.context.signers.read_again)

    def work(stores: Stores) -> KeyChangeView:
        return change_or_propose(stores, data.documents, operations=operations, caller=caller, because=data.because)

    return await operations.change(namespace, work)


@post(
    "/keys/device-tokens",
    permission=Permission.KEYS,
    status_code=HTTP_200_OK,
    summary="Replace the key that device tokens are made with",
)
async def replace_token_key(
    operations: NamedDependency[Operations],
    caller: NamedDependency[Caller],
    namespace: FromPath[str],
    data: JSONBody[NewTokenKey],
) -> TokenKeyView:
    """Every process of the server takes the new key within a second."""
    keys = DeviceTokenKeys(operations.context.online_keys.path / "device-tokens.key")

    def work(stores: Stores) -> TokenKeyView:
        now = operations.now()
        until = keys.replace(at_once=data.at_once, now=now)
        words = "tokens of the old key are refused at once" if data.at_once else "old tokens are good for an hour"
        audit(
            stores.registry,
            actor=caller.account,
            action="replace token key",
            because=f"{words}: {data.because}" if data.because else words,
            now=now,
        )
        return TokenKeyView(old_until=until)

    return await operations.do(namespace, work)


def policy_key(stores: Stores, signers: OnlineSigners, folder: KeyFolder) -> Key:
    """The key that the next model's policy is delegated to: the one that the others have, else the first one made."""
    named = role_keys(stores.roles.role_bytes(roles.TARGETS))
    keyids = [keyid for role, keys in named.items() if role.startswith("policy-") for keyid in keys.keyids]
    counted = sorted(dict.fromkeys(keyids), key=keyids.count, reverse=True)
    return signers.first_of(counted) or folder.named(_POLICY).public


def role_states(stores: Stores, *, folder: KeyFolder, now: float) -> RoleStatesView:
    """Who may sign what, the top-level roles first. Roles that are delegated with the same policy keys are one."""
    content = {role: stores.roles.role_bytes(role) for role in (roles.ROOT, roles.TARGETS)}
    public = {keyid: key for each in content.values() for keyid, key in role_public_keys(each).items()}
    named = {role: keys for each in content.values() for role, keys in role_keys(each).items()}
    held = folder.held()
    state = partial(_state, stores, public=public, held=set(held), now=now)
    top = [role for role in (roles.ROOT, roles.TARGETS, roles.SNAPSHOT, roles.TIMESTAMP) if role in named]
    publishers = sorted(role for role in named if roles.published_model(role) is not None)
    policies = [role for role in named if role.startswith("policy-")]
    floors = sorted(role for role in named if roles.model_of_floor(role) is not None)
    states = [state(role, named[role]) for role in (*top, *publishers, *floors)]
    if len({named[role] for role in policies}) == 1:
        states.append(state(policies[0], named[policies[0]], name=_POLICY))
    else:
        states += [state(role, named[role]) for role in sorted(policies)]
    used = {keyid for keys in named.values() for keyid in keys.keyids}
    unused = [keyid for keyid, key in held.items() if keyid not in used and (policies or key.name != _POLICY)]
    return RoleStatesView(roles=states, unused=unused)


@get("/keys/sealing", permission=Permission.READ, summary="To which key publishers seal the keys of releases")
async def show_sealing_key(operations: NamedDependency[Operations], namespace: FromPath[str]) -> SealingKeyView:
    """The public half of the server's sealing key."""
    del namespace  # one key a server
    return SealingKeyView(recipient=await asyncio.to_thread(lambda: operations.context.sealing_key.recipient))


@post(
    "/keys/sealing",
    permission=Permission.KEYS,
    status_code=HTTP_201_CREATED,
    summary="Have the server make its sealing key",
)
async def make_first_sealing_key(
    operations: NamedDependency[Operations], caller: NamedDependency[Caller], namespace: FromPath[str]
) -> SealingKeyView:
    """Make the key that opens the keys of sealed releases. It replaces none here."""
    context = operations.context
    recipient = await asyncio.to_thread(make_sealing_key, context.database, context.sealing_key)
    because = "a key that opens the keys of sealed releases"
    await _audit_sealing_key(operations, caller, namespace, "make_sealing_key", because, recipient=recipient)
    return SealingKeyView(recipient=recipient, path=str(context.sealing_key.path))


@post(
    "/keys/sealing/replace",
    permission=Permission.KEYS,
    status_code=HTTP_200_OK,
    summary="Have another sealing key take the place of the server's",
)
async def replace_sealing_key_here(
    operations: NamedDependency[Operations],
    caller: NamedDependency[Caller],
    namespace: FromPath[str],
    data: JSONBody[NewSealingKey],
) -> ReplacedSealingKeyView:
    """Seal every kept release key to a new sealing key. Given again after it was interrupted, it goes on."""
    context = operations.context
    database, key = context.database, context.sealing_key
    if data.lost:
        made = Replacement(await asyncio.to_thread(lambda: make_sealing_key(database, key, lost=True)), 0, 0)
    else:
        made = await asyncio.to_thread(replace_sealing_key, database, key)
    words = f"{made.sealed_anew} release keys are sealed to it, {made.unopened} could not be opened"
    words = "the one before is lost" if data.lost else words
    because = f"{words}: {data.because}" if data.because else words
    await _audit_sealing_key(operations, caller, namespace, "replace_sealing_key", because, recipient=made.recipient)
    return ReplacedSealingKeyView(
        recipient=made.recipient,
        path=str(key.path),
        sealed_anew=made.sealed_anew,
        unopened=made.unopened,
    )


async def _audit_sealing_key(
    operations: Operations, caller: Caller, namespace: str, action: str, because: str, *, recipient: str
) -> None:
    def work(stores: Stores) -> None:
        audit(
            stores.registry,
            actor=caller.account,
            action=action,
            because=because,
            now=operations.now(),
            evidence={"recipient": recipient},
        )

    await operations.do(namespace, work)


def _state(
    stores: Stores,
    role: str,
    keys: RoleKeys,
    *,
    public: dict[str, Key],
    held: set[str],
    now: float,
    name: str | None = None,
) -> RoleStateView:
    offline = not roles.is_servers(role)
    try:
        version, expires = stores.roles.newest().get(role, 0), stores.roles.expires(role)
    except NotFound:
        version, expires = 0, None
    warning = None if expires is None else expiry_warning(role, expires, now=now)
    mine = [] if offline else [keyid for keyid in keys.keyids if keyid in held]
    if not offline and len(mine) < keys.threshold:
        lacking = ", ".join(short(keyid) for keyid in keys.keyids if keyid not in held)
        warning = f"this server does not hold the key {lacking}, and cannot sign {name or role}"
    return RoleStateView(
        role=name or role,
        version=version,
        expires=expires,
        threshold=keys.threshold,
        keys=[_view(public[keyid]) for keyid in keys.keyids],
        offline=offline,
        held=mine,
        warning=warning,
    )


def _view(key: Key) -> KeyView:
    return KeyView(**plain(PublicKey.of(key)))


KEY_ROUTES = (
    list_keys,
    list_role_states,
    make_online_key,
    take_key_change,
    replace_token_key,
    show_sealing_key,
    make_first_sealing_key,
    replace_sealing_key_here,
)
