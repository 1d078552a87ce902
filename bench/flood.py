"""How long does a person's rollback take while the device listener is flooded?

A real `whimbrel serve`, and several client processes that ask its device listener for all that they can, each with some
connections on which they never wait for anything but an answer. Meanwhile a rollout is started and rolled back by the
admin API, again and again; the rollback is timed, from the request to the answer, which comes when the signed policy
says so. The floods, each alone: the signed timestamp (processor), tokens with a wrong credential (database), reports
of an enrolled device (inbox), connections that come and go.

Peer in the same run: the same rollbacks on the same server, left alone. The ratio of the medians is printed. `ok` is a
median below 2 s in every flood, on a machine whose processors the flood itself uses up.
"""

import argparse
import asyncio
import json
import os
import re
import signal
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx

MEDIAN_MAX_S = 2.0
PEER = "nothing else"
FLOODS = ("timestamp", "token", "reports", "connections")
CLIENTS, CONNECTIONS, WARM_UP_S = 4, 32, 1.0
SAMPLES, SAMPLES_QUICK = 60, 10
PLAN = 'rollout:\n  model_version: "wake@2.0.0"\n  stages: [{name: canary, target_percent: 5, duration_hours: 24}]\n'


def main() -> None:
    """Run, print the table, write the raw figures; with --json the last line is one object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help=f"{SAMPLES_QUICK} rollbacks a row instead of {SAMPLES}")
    parser.add_argument("--json", action="store_true", help="print one JSON object on the last line")
    parser.add_argument("--client", nargs=3, metavar=("FLOOD", "PORT", "TOKEN"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.client:
        flood, port, token = arguments.client
        with suppress(KeyboardInterrupt):
            asyncio.run(_flood(flood, int(port), token))
        return
    count = SAMPLES_QUICK if arguments.quick else SAMPLES
    with tempfile.TemporaryDirectory(prefix="whimbrel-bench-") as name:
        rows = _measure(Path(name), count)
    for row in rows:
        row["ratio"] = round(row["median_s"] / rows[0]["median_s"], 2)
    summary = {
        "ok": all(row["median_s"] < MEDIAN_MAX_S for row in rows),
        "rollbacks": count,
        "clients": CLIENTS,
        "connections": CLIENTS * CONNECTIONS,
        "rows": rows,
    }
    results = Path(__file__).parent / "results"
    results.mkdir(exist_ok=True)
    (results / "flood.json").write_text(json.dumps(summary, indent=1))
    print(f"{'flood':<14}{'median s':>10}{'p99 s':>10}{'ratio':>8}{'requests/s':>12}")
    for row in rows:
        print(f"{row['flood']:<14}{row['median_s']:>10}{row['p99_s']:>10}{row['ratio']:>8}{row['requests_s']:>12}")
    if arguments.json:
        print(json.dumps(summary))
    sys.exit(0 if summary["ok"] else 1)


def _measure(folder: Path, count: int) -> list[dict[str, Any]]:
    repository = folder / "repository"
    _whimbrel("init", repository)
    _whimbrel("model", "add", "wake", "-R", repository)
    for number in (1, 2):
        file = folder / f"{number}.safetensors"
        head = json.dumps({"w": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}).encode()
        file.write_bytes(struct.pack("<Q", len(head)) + head + struct.pack("<4f", *[float(number)] * 4))
        _whimbrel("publish", "-m", "wake", file, "--semantic-version", f"{number}.0.0", "--unchecked", "-R", repository)
    with _served(repository) as (devices, admin):
        token = _device_token(devices, (repository / "enrol.token").read_text().strip())
        headers = {"authorization": f"Bearer {(repository / 'admin.token').read_text().strip()}"}
        with httpx.Client(
            base_url=f"{admin}/default/admin/v1", headers=headers, trust_env=False, timeout=120
        ) as people:
            rows = [_row(PEER, people, count)]
            for flood in FLOODS:
                with _flooded(flood, port=int(devices.rpartition(":")[2]), token=token) as requests:
                    time.sleep(WARM_UP_S)
                    began = time.monotonic()
                    row = _row(flood, people, count)
                    lasted_s = time.monotonic() - began + WARM_UP_S
                row["requests_s"] = round(sum(requests) / lasted_s)
                rows.append(row)
    return rows


def _row(flood: str, people: httpx.Client, count: int) -> dict[str, Any]:
    times = []
    for _ in range(count):
        rollout = people.post("/rollouts", json={"plan": PLAN}).raise_for_status().json()["id"]
        began = time.monotonic()
        people.post(f"/rollouts/{rollout}/rollback", json={"because": "bench"}).raise_for_status()
        times.append(time.monotonic() - began)
        people.post("/models/wake/versions/2.0.0/unquarantine", json={"because": "bench"}).raise_for_status()
        deadline = time.monotonic() + 60
        while people.get(f"/rollouts/{rollout}").json()["state"] != "rolled_back" and time.monotonic() < deadline:
            time.sleep(0.05)
    times.sort()
    return {
        "flood": flood,
        "median_s": round(statistics.median(times), 3),
        "p99_s": round(times[int(len(times) * 0.99)], 3),
        "requests_s": 0,
    }


def _device_token(devices: str, enrol_token: str) -> str:
    with httpx.Client(base_url=f"{devices}/default/device/v1", trust_env=False, timeout=30) as device:
        enrolled = device.post("/enrol", json={"device_id": "flooder", "enrol_token": enrol_token, "models": ["wake"]})
        return str(device.post("/token", json=enrolled.raise_for_status().json()).raise_for_status().json()["token"])


@contextmanager
def _served(repository: Path) -> Iterator[tuple[str, str]]:
    """A server in processes of its own: (where devices ask, where people ask)."""
    command = [sys.executable, "-m", "whimbrel.cli", "serve", str(repository)]
    listen = ["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]
    process = subprocess.Popen([*command, *listen], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        line = process.stdout.readline() if process.stdout else ""
        match = re.match(r"devices: (\S+)/default +people: (\S+) ", line)
        if match is None:
            raise SystemExit(f"the server said {line!r}")
        yield match[1], match[2]
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


@contextmanager
def _flooded(flood: str, *, port: int, token: str) -> Iterator[list[int]]:
    """Client processes; when the block has ended, the list holds how many answers each one had."""
    command = [sys.executable, __file__, "--client", flood, str(port), token]
    clients = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(CLIENTS)]
    answers: list[int] = []
    try:
        yield answers
    finally:
        for client in clients:
            client.send_signal(signal.SIGINT)
        for client in clients:
            said, _ = client.communicate(timeout=30)
            answers.append(int(said or 0))


async def _flood(flood: str, port: int, token: str) -> None:
    answers = 0

    async def connection() -> None:
        nonlocal answers
        while True:
            with suppress(OSError, asyncio.IncompleteReadError):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                try:
                    while True:
                        writer.write(_request(flood, token))
                        head = await reader.readuntil(b"\r\n\r\n")
                        length = re.search(rb"content-length: (\d+)", head)
                        await reader.readexactly(int(length[1]) if length else 0)
                        answers += 1
                        if flood == "connections" or b"connection: close" in head:
                            break
                finally:
                    writer.close()

    try:
        await asyncio.gather(*(connection() for _ in range(CONNECTIONS)))
    finally:
        print(answers, flush=True)


def _request(flood: str, token: str) -> bytes:
    if flood in {"timestamp", "connections"}:
        return b"GET /default/metadata/timestamp.json HTTP/1.1\r\nhost: bench\r\n\r\n"
    body = {
        "token": {"device_id": "flooder", "credential": os.urandom(24).hex()},
        "reports": {"epoch": os.urandom(8).hex(), "models": ["wake"], "windows": []},
    }[flood]
    content = json.dumps(body).encode()
    head = f"POST /default/device/v1/{flood} HTTP/1.1\r\nhost: bench\r\ncontent-length: {len(content)}\r\n"
    return f"{head}authorization: Bearer {token}\r\n\r\n".encode() + content


def _whimbrel(*words: object) -> None:
    command = [sys.executable, "-m", "whimbrel.cli", *map(str, words)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    main()
