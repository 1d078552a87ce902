"""What does the agent cost a device while it does nothing, and while it updates a model of 1 GB?

Each figure is taken in a process of its own, over real HTTP from this one:
- import: CPU seconds of `import whimbrel.agent.app`, beyond an interpreter that imports nothing (median of 5);
- idle: resident memory after a first update and some cycles, and after one by a patch, when numpy is there to stay;
- update, whole and by a patch: the most that was resident (VmHWM, set to zero before), less what was resident of the
  model's own files. The agent maps none, so this is 0 here; the probe runs in another process and is left out.
Peers in the same run: an interpreter alone, and one that imports numpy.

As on a device, modules are compiled, and only the packages of the base install and of the codec can be imported.
The patch is of bfloat16 numbers of which a hundredth moved; `seconds` are wall time, with everything on this machine.

`--quick`: 200 MB instead of 1 GB. `--json`: the last line is one object with `ok` and the figures.
"""

import argparse
import hashlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

MB = 1_000_000
IMPORT_S, IDLE_MB, UPDATE_MB = 0.3, 60.0, 60.0  # the promises
_AS_ON_A_DEVICE = (
    "import sys; sys.modules['typing_extensions'] = None\n"  # msgspec takes it where it is; no device has it
)
_AGENT = """
    import json, sys, time
    from pathlib import Path
    from whimbrel.agent.options import AgentOptions
from whimbrel.agent.app import Agent
    from whimbrel.device.ports import ProbeResult

    class AllGood:
        def probe(self, request):
            return ProbeResult(passed=True)

    def memory(word):
        lines = Path("/proc/self/status").read_text().splitlines()
        return int(next(line.split()[1] for line in lines if line.startswith(word))) * 1024

    server, root, folder = sys.argv[1:4]
    agent = Agent.open(folder, AgentOptions(server=server, root=root, models=["detector"], probes=AllGood()))
    for line in sys.stdin:
        Path("/proc/self/clear_refs").write_text("5")
        began = time.monotonic()
        while True:
            result = agent.cycle(force=True)
            if result.models["detector"]["serial"] == int(line):
                break
            if result.problems:
                sys.stderr.write(f"{result.problems}\\n")
        for _ in range(3):
            with agent.session("detector"):
                pass
        seconds, peak = time.monotonic() - began, memory("VmHWM:")
        agent.cycle()
        agent.cycle(force=True)
        figures = {"peak": peak, "now": memory("VmRSS:"), "seconds": seconds, "codec": "numpy" in sys.modules}
        print(json.dumps(figures), flush=True)
"""


def cpu_s(code: str) -> float:
    """CPU seconds of a fresh interpreter that runs `code`."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", _AS_ON_A_DEVICE + code], check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def resident_mb(code: str) -> float:
    """Resident megabytes of an interpreter after `code`."""
    code += "\nprint(next(line.split()[1] for line in open('/proc/self/status') if line.startswith('VmRSS:')))"
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    return int(out) * 1024 / MB


def write_model(path: Path, size: int, *, changed: bool) -> None:
    """A safetensors file of bfloat16 tensors; `changed`: a hundredth of the numbers moved a little."""
    rows, columns = 1024, 2048
    count = max(1, size // (rows * columns * 2))
    tensors: dict[str, Any] = {}
    for number in range(count):
        start = number * rows * columns * 2
        offsets = [start, start + rows * columns * 2]
        tensors[f"layer.{number}"] = {"dtype": "BF16", "shape": [rows, columns], "data_offsets": offsets}
    header = json.dumps(tensors).encode()
    header += b" " * (-len(header) % 8)
    with path.open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        for number in range(count):
            chance = np.random.default_rng(number)
            values = (chance.standard_normal(rows * columns, dtype=np.float32) * 0.02).view(np.uint32) >> 16
            if changed:
                values[chance.integers(0, values.size, values.size // 100)] += 1
            file.write(values.astype(np.uint16).tobytes())


class Files(dict[str, bytes]):
    """Artifacts that are read from their files on request."""

    def __init__(self) -> None:
        super().__init__()
        self.paths: dict[str, Path] = {}

    def get(self, key: str, default: Any = None) -> Any:
        """The bytes."""
        return self.paths[key].read_bytes() if key in self.paths else default

    def add(self, path: Path) -> str:
        """Serve a file from now on. Returns its digest."""
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        self.paths[digest] = path
        return digest


def update_figures(size: int, folder: Path) -> dict[str, float]:
    """Resident megabytes: idle, and at the most while updating."""
    from support.repository import Repository, Server  # type: ignore[import-not-found]
    from whimbrel import patchfile
    from whimbrel.model.documents import encode
    from whimbrel.model.release import File, Variant
    from whimbrel.model.ways import DeltaIndex, Step
    from whimbrel.trust import roles

    repository, files = Repository(), Files()
    repository.blobs = files
    digests = []
    for serial, changed in ((1, False), (2, True)):
        path = folder / f"{serial}.safetensors"
        write_model(path, size, changed=changed)
        digests.append(files.add(path))
        file = File(name="model.safetensors", size_bytes=path.stat().st_size, sha256=digests[-1], format="safetensors")
        repository.release("detector", serial, variants=(Variant(name="any", files=(file,)),))
    patch = folder / "patch"
    patchfile.encode_files(folder / "1.safetensors", folder / "2.safetensors", patch)
    step = Step(
        base=digests[0],
        target=digests[1],
        target_bytes=(folder / "2.safetensors").stat().st_size,
        sha256=files.add(patch),
        size_bytes=patch.stat().st_size,
    )
    index = DeltaIndex(model="detector", serial=2, steps=(step,))
    repository.put(roles.policy_role("detector"), roles.deltas_path("detector", 2), encode(index))
    (folder / "root.json").write_bytes(repository.root_bytes)
    with Server(repository) as server:
        code = _AS_ON_A_DEVICE + textwrap.dedent(_AGENT)
        command = [sys.executable, "-c", code, server.url, folder / "root.json", folder / "device"]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as agent:
            if agent.stdin is None or agent.stdout is None:
                raise RuntimeError("no pipes")
            passes = []
            for serial in (1, 2):
                repository.policy("detector", baseline=serial)
                agent.stdin.write(f"{serial}\n")
                agent.stdin.flush()
                passes.append(json.loads(agent.stdout.readline()))
            agent.stdin.close()
    return {
        "model_mb": size / MB,
        "patch_mb": patch.stat().st_size / MB,
        "idle_rss_mb": passes[0]["now"] / MB,
        "whole_peak_mb": passes[0]["peak"] / MB,
        "patch_peak_mb": passes[1]["peak"] / MB,
        "after_patch_rss_mb": passes[1]["now"] / MB,
        "whole_s": passes[0]["seconds"],
        "patch_s": passes[1]["seconds"],
        "codec_while_whole": float(passes[0]["codec"]),
        "codec_while_patch": float(passes[1]["codec"]),
    }


def main() -> int:
    """Measure, print, and say whether the promises hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a model of 200 MB")
    parser.add_argument("--json", action="store_true", help="the last line is one JSON object")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for name in ("PYTHONSTARTUP", "PYTHONDONTWRITEBYTECODE"):
            os.environ.pop(name, None)
        os.environ["PYTHONPYCACHEPREFIX"] = f"{folder}/compiled"
        cpu_s("import whimbrel.agent.app, whimbrel.patchfile")  # compiles
        bare = median(cpu_s("pass") for _ in range(5))
        figures = {
            "import_cpu_s": median(cpu_s("import whimbrel.agent.app") for _ in range(5)) - bare,
            "import_numpy_cpu_s": median(cpu_s("import numpy") for _ in range(5)) - bare,
            "python_rss_mb": resident_mb("pass"),
            "numpy_rss_mb": resident_mb("import numpy"),
        }
        figures |= update_figures((200 if given.quick else 1000) * MB, Path(folder))
    promised = {
        "import_cpu_s": IMPORT_S,
        "idle_rss_mb": IDLE_MB,
        "whole_peak_mb": UPDATE_MB,
        "patch_peak_mb": UPDATE_MB,
        "after_patch_rss_mb": IDLE_MB,
    }
    over = [name for name, most in promised.items() if figures[name] >= most]
    ok = not over and figures["codec_while_whole"] == 0 and figures["codec_while_patch"] == 1
    for name, value in figures.items():
        print(f"{name:24}{value:10.3f}")
    print(f"promised: {', '.join(f'{name} below {most:g}' for name, most in promised.items())}")
    print(f"over: {', '.join(over) or 'none'}")
    if given.json:
        print(json.dumps({"ok": ok, **{name: round(value, 4) for name, value in figures.items()}}))
    return 0  # it measured; `ok` has the result


if __name__ == "__main__":
    sys.exit(main())
