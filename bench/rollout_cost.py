"""What does it cost to start, advance and take back a rollout, for 10 devices and for 10,000,000?

The promise: one document, whatever the size of the fleet. For each size the benchmark makes a repository, and decides
for simulated profiles with the product's own `decide`. The moves are the product's own flows, policy writing and
signing, over a real SQLite registry. Figures are CPU seconds of this process (getrusage), and the documents that a move
wrote.

Peer in the same run: the cost of the usual design, where the server writes one assignment row a device at each move
(what a database of per-device deployments does). It is measured up to `--peer-devices` and printed as a ratio.
"""

import argparse
import asyncio
import json
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from sqlalchemy import Column, Integer, MetaData, String, Table, func, insert, select

from whimbrel.flows.files.plan_file import read_plan
from whimbrel.flows.records import ModelRecord, ModelSettings, VersionRecord
from whimbrel.flows.rollouts.move import move_by_person
from whimbrel.flows.rollouts.start import start_rollout
from whimbrel.model.documents import parse
from whimbrel.model.release import Line
from whimbrel.policy.decide import Profile, decide
from whimbrel.policy.policy import Policy
from whimbrel.server.app import Repository, create_repository, open_repository
from whimbrel.server.config import Config
from whimbrel.stores import schema
from whimbrel.stores.transaction import transaction
from whimbrel.trust import roles

MODEL = "detector"
PLAN = """
rollout:
  model_version: "detector@2026.01.02.1"
  stages:
    - {name: canary, target_percent: 5, duration_hours: 24}
    - {name: general, target_percent: 100, duration_hours: 24}
"""
DECIDED = 1_000_000  # profiles that are decided one by one, evenly spread over the fleet; with --quick a 50th of it


def main() -> None:
    """Run, print the table, write the raw figures; with --json the last line is one object."""
    arguments = _arguments()
    sizes = [10, 10_000, 1_000_000] if arguments.quick else [10, 10_000, 1_000_000, 10_000_000]
    sizes = sorted({size for size in sizes if size <= arguments.most} | {arguments.most})
    decided = DECIDED // 50 if arguments.quick else DECIDED
    rows = [_measure(size, decided=decided, peer=min(size, arguments.peer_devices)) for size in sizes]
    growth = round(rows[-1]["move_cpu_ms"] / rows[0]["move_cpu_ms"], 2)
    summary = {
        "ok": all(row["documents"] == 1 for row in rows) and growth < 2.0,
        "devices_max": sizes[-1],
        "move_cpu_ms_max": max(row["move_cpu_ms"] for row in rows),
        "growth": growth,
        "rows": rows,
    }
    _write(summary)
    _table(rows, growth)
    if arguments.json:
        print(json.dumps(summary))
    sys.exit(0 if summary["ok"] else 1)


def _measure(devices: int, *, decided: int, peer: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="whimbrel-bench-") as name:
        folder = create_repository(Path(name) / "repository", Config())
        with open_repository(folder) as repository:
            _begin(repository, devices)
            moves = {}
            documents_before = _policies(repository)
            moves["start"], rollout = _cpu_ms(lambda: _start(repository))
            documents = _policies(repository) - documents_before
            policy = _policy(repository)
            share = _decided(policy, devices, sample=min(devices, decided))
            moves["pause"], _ = _cpu_ms(lambda: _move(repository, rollout, "pause"))
            moves["rollback"], _ = _cpu_ms(lambda: _move(repository, rollout, "rollback"))
            size = len(_policy_bytes(repository))
            peer_ms = _peer_ms(repository, peer)
    return {
        "devices": devices,
        "documents": documents,
        "policy_bytes": size,
        "start_cpu_ms": round(moves["start"], 2),
        "rollback_cpu_ms": round(moves["rollback"], 2),
        "move_cpu_ms": round(max(moves["start"], moves["rollback"]), 2),
        "profiles_decided": min(devices, decided),
        "treated_share": round(share, 5),
        "peer_devices": peer,
        "peer_cpu_ms": round(peer_ms, 2),
        "peer_over_ours": round(peer_ms * (devices / peer) / max(moves["start"], moves["rollback"]), 1),
    }


def _begin(repository: Repository, devices: int) -> None:
    now = time.time()
    with transaction(repository.database, "default") as stores:
        registry = stores.registry
        registry.add_model(
            ModelRecord(namespace="default", name=MODEL, created_at=now, salt=42, settings=ModelSettings(), baseline=1)
        )
        for serial in (1, 2):
            registry.add_version(
                VersionRecord(
                    namespace="default",
                    model=MODEL,
                    serial=serial,
                    version=f"2026.01.0{serial}.1",
                    semantic_version=f"1.{serial}.0",
                    build_hash="0" * 12,
                    created_at=now,
                    size_bytes=1,
                    good=serial == 1,
                ),
                release=b"{}",
                digests=[],
            )
        # The inventory holds enrolled devices; what a move costs must not depend on how many there are.
        table, portion = schema.devices, 10_000
        for first in range(0, min(devices, 200_000), portion):
            stores.connection.execute(
                insert(table),
                [
                    {
                        "namespace": "default",
                        "device_id": f"dev-{n}",
                        "key": n * 2654435761,
                        "labels": b"{}",
                        "credential_sha256": "0" * 64,
                        "enrolled_at": now,
                        "seen_at": now,
                    }
                    for n in range(first, min(devices, first + portion))
                ],
            )
    asyncio.run(repository.controllers.settle())


def _start(repository: Repository) -> str:
    with transaction(repository.database, "default") as stores:
        rollout = start_rollout(
            stores.registry,
            stores.fleet,
            read_plan(PLAN, what="plan.yaml"),
            plan_text=PLAN,
            tag="bench",
            hour_s=3600,
            actor="bench",
            now=time.time(),
        )
    asyncio.run(repository.controllers.settle())
    return rollout.id


def _move(repository: Repository, rollout: str, move: Any) -> None:
    with transaction(repository.database, "default") as stores:
        move_by_person(
            stores.registry,
            stores.fleet,
            rollout,
            move,
            because="bench",
            actor="bench",
            now=time.time(),
        )
    asyncio.run(repository.controllers.settle())


def _decided(policy: Policy, devices: int, *, sample: int) -> float:
    """The share of profiles that the policy treats: decided one by one, up to a sample."""
    line = Line(model=MODEL, sequence=1)
    step = max(1, devices // sample)
    treated = sum(decide(policy, line, Profile(f"dev-{n * step}")).serial == 2 for n in range(sample))
    return treated / sample


def _policies(repository: Repository) -> int:
    table = schema.target_documents
    with repository.database.transaction() as connection:
        return connection.execute(
            select(func.count()).select_from(table).where(table.c.path == roles.policy_path(MODEL))
        ).scalar_one()


def _policy_bytes(repository: Repository) -> bytes:
    with transaction(repository.database, "default") as stores:
        document = stores.roles.current_target(roles.policy_role(MODEL), roles.policy_path(MODEL))
    return document or b""


def _policy(repository: Repository) -> Policy:
    return parse(Policy, _policy_bytes(repository), what="the policy")


def _peer_ms(repository: Repository, devices: int) -> float:
    """One assignment row a device, in batches, in one transaction: the usual design."""
    table = Table("peer_assignment", MetaData(), Column("device", String, primary_key=True), Column("target", Integer))
    with repository.database.transaction() as connection:
        table.create(connection)

    def assign() -> None:
        with repository.database.transaction() as connection:
            for first in range(0, devices, 10_000):
                connection.execute(
                    insert(table),
                    [{"device": f"dev-{n}", "target": 2} for n in range(first, min(devices, first + 10_000))],
                )

    return _cpu_ms(assign)[0]


def _cpu_ms(work: Any) -> tuple[float, Any]:
    before = resource.getrusage(resource.RUSAGE_SELF)
    result = work()
    after = resource.getrusage(resource.RUSAGE_SELF)
    return 1000 * (after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime), result


def _table(rows: list[dict[str, Any]], growth: float) -> None:
    heads = f"{'devices':>12} {'documents':>10} {'bytes':>7} {'start ms':>9} {'back ms':>9}"
    print(f"{heads} {'rows a device / ours':>21}")
    for row in rows:
        print(
            f"{row['devices']:>12,} {row['documents']:>10} {row['policy_bytes']:>7} {row['start_cpu_ms']:>9} "
            f"{row['rollback_cpu_ms']:>9} {row['peer_over_ours']:>20}x"
        )
    print(f"growth from the smallest to the largest fleet: {growth}x (CPU of the costliest move)")


def _write(summary: dict[str, Any]) -> None:
    folder = Path(__file__).parent / "results"
    folder.mkdir(exist_ok=True)
    (folder / "rollout_cost.json").write_text(json.dumps(summary, indent=2))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="up to a million devices")
    parser.add_argument("--json", action="store_true", help="last line: one object")
    parser.add_argument("--most", type=int, default=10_000_000, help="the largest fleet")
    parser.add_argument("--peer-devices", type=int, default=100_000, help="the peer is measured up to here")
    return parser.parse_args()


if __name__ == "__main__":
    main()
