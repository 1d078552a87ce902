"""Who signs which paths, and for how long? (The Update Framework 1.0, sections 2.1 and 4.)

1. `root` and `targets` are offline. `targets` delegates `models/<m>/*` to `publisher-<m>` (offline) and
   `policy/<m>.json`, `deltas/<m>/*` to `policy-<m>` (online). `snapshot` and `timestamp` are online.
2. All delegations are made by `targets`, so no role name is shared between delegators (python-tuf does not verify a
   cached delegated role again against a different delegator).
3. Only the four documents are TUF targets. Artifacts are named by their hash inside them.
4. A publisher's role lives for two years, so that an idle model does not die; the timestamp for a day.
5. Where a model asks for it, `targets` delegates `floors/<m>.json` to `floor-<m>`, which lives for days: it says which
   line is the newest, so that an old line brings nothing to a device that never saw a newer one (ADR 80).
"""

from datetime import timedelta

from whimbrel.model.ids import check_name

ROOT = "root"
TARGETS = "targets"
SNAPSHOT = "snapshot"
TIMESTAMP = "timestamp"

TIMESTAMP_LIFE = timedelta(hours=24)
TIMESTAMP_RENEWAL = timedelta(hours=1)  # it is signed anew this often, and on every change
SNAPSHOT_LIFE = timedelta(days=30)
POLICY_LIFE = timedelta(days=90)  # online: renewed by the leader when half of it is over
ROOT_LIFE = timedelta(days=730)
TARGETS_LIFE = timedelta(days=730)
PUBLISHER_LIFE = timedelta(days=730)


def is_offline(role: str) -> bool:
    """Whether people sign this role: the server cannot sign it anew before it expires."""
    return role in {ROOT, TARGETS} or published_model(role) is not None


def is_servers(role: str) -> bool:
    """Whether a server signs this role. A floor's key lies elsewhere; its role lives as long as its document says."""
    return not is_offline(role) and model_of_floor(role) is None


def life_of(role: str) -> timedelta:
    """How long a role lives after it is signed."""
    lives = {ROOT: ROOT_LIFE, TARGETS: TARGETS_LIFE, SNAPSHOT: SNAPSHOT_LIFE, TIMESTAMP: TIMESTAMP_LIFE}
    return lives.get(role, PUBLISHER_LIFE if published_model(role) is not None else POLICY_LIFE)


def publisher_role(model: str) -> str:
    """The offline role that signs a model's releases and line."""
    return f"publisher-{check_name(model, kind='model')}"


def published_model(role: str) -> str | None:
    """The model whose publisher this role is; None for every other role."""
    return role.removeprefix("publisher-") if role.startswith("publisher-") else None


def policy_role(model: str) -> str:
    """The online role that signs a model's policy and delta indices."""
    return f"policy-{check_name(model, kind='model')}"


def publisher_paths(model: str) -> list[str]:
    """The TUF path patterns that a publisher may sign."""
    return [f"models/{check_name(model, kind='model')}/*"]


def policy_paths(model: str) -> list[str]:
    """The TUF path patterns that the online policy role may sign."""
    check_name(model, kind="model")
    return [f"policy/{model}.json", f"deltas/{model}/*"]


def floor_role(model: str) -> str:
    """The role that says, for some days at a time, which line of a model is the newest."""
    return f"floor-{check_name(model, kind='model')}"


def model_of_floor(role: str) -> str | None:
    """The model whose floor this role signs; None for every other role."""
    return role.removeprefix("floor-") if role.startswith("floor-") else None


def floor_path(model: str) -> str:
    """The TUF target path of a model's floor, and all that its floor role may sign."""
    return f"floors/{check_name(model, kind='model')}.json"


def floor_paths(model: str) -> list[str]:
    """The TUF path patterns that a floor's role may sign."""
    return [floor_path(model)]


def release_path(model: str, serial: int) -> str:
    """The TUF target path of a release."""
    return f"models/{model}/{serial}.json"


def line_path(model: str) -> str:
    """The TUF target path of a model's line."""
    return f"models/{model}/line.json"


def deltas_path(model: str, serial: int) -> str:
    """The TUF target path of a release's delta index."""
    return f"deltas/{model}/{serial}.json"


def policy_path(model: str) -> str:
    """The TUF target path of a model's policy."""
    return f"policy/{model}.json"


def paths_of(role: str) -> list[str] | None:
    """All that a role which `targets` delegates may sign; None for a name that this project delegates nothing to.

    Raises `ValueError` where the name holds no model's name.
    """
    for prefix, paths in _PATHS.items():
        if role.startswith(prefix):
            return paths(role.removeprefix(prefix))
    return None


_PATHS = {"publisher-": publisher_paths, "policy-": policy_paths, "floor-": floor_paths}
