"""What does a look at who is silent cost, for a fleet of a million devices?

    python bench/silence.py [--devices N] [--database URL] [--quick] [--json]

A server looks at every device of a living rollout in every tally window (`stores/silence.py`). The look is two
statements in the database. This benchmark fills one rollout with devices, of which some fell silent, and times looks as
the server makes them: seconds by the clock, of CPU of this process (getrusage), and rows written. Seconds of CPU of a
database server are its own, and are not in them.

Peer in the same run: reading the rows into the process and counting there. The database is SQLite in a temporary
folder, or the PostgreSQL that `--database` (or WHIMBREL_TEST_POSTGRESQL) names, in a schema of its own that is dropped.
"""

import argparse
import json
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Float, String, case, cast, insert, literal, select

from whimbrel.flows.device_records import SilenceLook
from whimbrel.health.tally import AGE_EDGES_H
from whimbrel.stores import schema
from whimbrel.stores.database import Database
from whimbrel.stores.silence import later_looks

NAMESPACE, ROLLOUT = "default", "ro-1"
WINDOW_S, HOUR_S, DAY_S = 300.0, 3600.0, 86_400
PATIENCE_S = 3 * WINDOW_S
CLASSES = 20
SILENT = 100  # one device in so many is silent at the first look, and another at each further one
LOOKS = 3
ROWS = 20_000  # that the peer reads at once
LONGEST_S = 30.0  # a tenth of a window: what a look at a million devices may take on two cores


def main() -> None:
    """Fill, look, print the table, write the raw figures; with --json the last line is one object."""
    arguments = _arguments()
    devices = arguments.devices or (20_000 if arguments.quick else 1_000_000)
    with _database(arguments.database) as database:
        filled = _timed(lambda: _fill(database, devices))
        looks = [_look(database, number, devices=devices) for number in range(LOOKS)]
        peer = _timed(lambda: _peer(database))
    engine = database.engine.dialect.name
    print(f"{devices:,} devices in one rollout, {CLASSES} classes, {engine}; filled in {filled['wall_s']:.1f} s")
    print(f"{'':24}{'wall s':>10}{'CPU s':>10}{'due':>12}{'overdue':>10}")
    for number, each in enumerate(looks, start=1):
        print(f"look {number:<19}{each['wall_s']:>10.3f}{each['cpu_s']:>10.3f}{each['due']:>12,}{each['overdue']:>10,}")
    print(f"{'rows read and counted':24}{peer['wall_s']:>10.3f}{peer['cpu_s']:>10.3f}")
    slowest = max(each["wall_s"] for each in looks)
    summary: dict[str, Any] = {
        "ok": slowest <= LONGEST_S and all(each["as_expected"] for each in looks),
        "devices": devices,
        "engine": engine,
        "slowest_wall_s": round(slowest, 3),
        "slowest_cpu_s": round(max(each["cpu_s"] for each in looks), 3),
        "peer_cpu_ratio": round(peer["cpu_s"] / max(each["cpu_s"] for each in looks), 1),
    }
    folder = Path(__file__).parent / "results"
    folder.mkdir(exist_ok=True)
    raw = json.dumps({"summary": summary, "looks": looks, "peer": peer, "filled": filled}, indent=1, sort_keys=True)
    (folder / "silence.json").write_text(raw + "\n")
    if arguments.json:
        print(json.dumps(summary, sort_keys=True))
    sys.exit(0 if summary["ok"] else 1)


def _fill(database: Database, devices: int) -> None:
    """Devices that reported in the window before; look n finds one in SILENT of them silent. The database makes all."""
    numbers = select(literal(0).label("n")).cte("numbers", recursive=True)
    numbers = numbers.union_all(select(numbers.c.n + 1).where(numbers.c.n < devices - 1))
    number = numbers.c.n
    silent_from, group = number % SILENT, number // SILENT  # the look at which it is missed, if that is one of LOOKS
    columns: dict[str, Any] = {
        "namespace": literal(NAMESPACE),
        "rollout": literal(ROLLOUT),
        "stage": literal(0),
        "device_id": literal("device-") + cast(number, String),
        "role": case((group % 20 == 0, "treated"), else_="control"),
        "hardware_class": literal("class-") + cast(group % CLASSES, String),
        "assigned_at": literal(0.0),
        "activated_at": cast(number % DAY_S - DAY_S, Float),
        "reported_at": literal(0.0),
        "outcome": literal(""),
        "silence_judged": literal(True),
        "heard_at": case(
            (silent_from < LOOKS, cast(silent_from, Float) * WINDOW_S - 1.0), else_=LOOKS * WINDOW_S + PATIENCE_S
        ),
        "hearing": literal("heard"),
    }
    with database.engine.begin() as connection:
        connection.execute(insert(schema.participations).from_select(list(columns), select(*columns.values())))


def _look(database: Database, number: int, *, devices: int) -> dict[str, Any]:
    """One look as `judge_silence` makes it; `as_expected`: it counted those that were made to be silent."""
    looks: list[SilenceLook] = []

    def look() -> None:
        with database.engine.begin() as connection:
            looks.extend(
                later_looks(
                    connection,
                    NAMESPACE,
                    ROLLOUT,
                    now=number * WINDOW_S + PATIENCE_S,
                    patience_s=PATIENCE_S,
                    age_edges_s=[edge * HOUR_S for edge in AGE_EDGES_H],
                )
            )

    spent = _timed(look)
    due, overdue = sum(each.due for each in looks), sum(each.overdue for each in looks)
    silent = [len(range(first, devices, SILENT)) for first in range(LOOKS)]
    expected = devices - sum(silent[:number]), silent[number]
    return spent | {"due": due, "overdue": overdue, "lines": len(looks), "as_expected": (due, overdue) == expected}


def _peer(database: Database) -> dict[tuple[str, str], int]:
    """Every row of the rollout brought here and counted, as a server would that asks for its devices."""
    table = schema.participations
    counts: dict[tuple[str, str], int] = {}
    with database.engine.connect() as connection:
        asked = select(table.c.role, table.c.hardware_class, table.c.heard_at, table.c.gap_s, table.c.hearing)
        for role, name, *_ in connection.execution_options(yield_per=ROWS).execute(asked):
            counts[role, name] = counts.get((role, name), 0) + 1
    return counts


def _timed(act: Callable[[], object]) -> dict[str, Any]:
    """Seconds by the clock, and of CPU of this process."""
    used, began = _cpu_s(), time.monotonic()
    act()
    return {"wall_s": round(time.monotonic() - began, 4), "cpu_s": round(_cpu_s() - used, 4)}


def _cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


@contextmanager
def _database(url: str | None) -> Iterator[Database]:
    """A migrated database of its own: a file, or a schema that is dropped afterwards."""
    if url is None:
        with tempfile.TemporaryDirectory() as folder:
            yield from _opened(f"sqlite:///{folder}/registry.db")
        return
    import psycopg

    name = f"whimbrel_bench_{os.urandom(6).hex()}"
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"CREATE SCHEMA {name}")
    try:
        yield from _opened(f"{url}{'&' if '?' in url else '?'}options=-csearch_path%3D{name}")
    finally:
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(f"DROP SCHEMA {name} CASCADE")


def _opened(url: str) -> Iterator[Database]:
    database = Database(url)
    try:
        database.migrate()
        yield database
    finally:
        database.close()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--devices", type=int, help="1,000,000 where not said; with --quick 20,000")
    parser.add_argument("--database", default=os.environ.get("WHIMBREL_TEST_POSTGRESQL"), help="of PostgreSQL")
    parser.add_argument("--quick", action="store_true", help="fewer devices")
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    return parser.parse_args()


if __name__ == "__main__":
    main()
