"""Coverage-guided fuzzing of every parser of bytes from others: `python tests/fuzz/run.py --seconds 15 [TARGET ...]`.

`make fuzz` runs all targets, two side by side, and CI does. Needs `atheris`, which has wheels for Linux only; the suite
`tests/attack/test_fuzzed_parsers.py` tries the seeds, what was found, and mutations without it. The targets are in
`tests/support/fuzz`, those of the delta codec in `delta.py` beside this file.

What harms is written to `--found DIR` (the current folder). Put it into `tests/fuzz/corpus/<target>`, where every later
run begins with it; and into a test, with the bug that it shows.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).parent
DELTA = ("containers", "patches", "parts")
NAMES = ("documents", "reports", "metadata", "archives", "model_files", "texts", "provenance", "answers")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"{', '.join((*DELTA, *NAMES))}; all by default")
    parser.add_argument("--seconds", type=int, default=15, help="of each target")
    parser.add_argument("--workers", type=int, default=2, help="targets that run side by side")
    parser.add_argument("--found", type=Path, default=Path.cwd(), help="where what harms is written")
    parser.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)  # one target, in this process
    options = parser.parse_args()
    if unknown := set(options.targets) - {*DELTA, *NAMES}:
        parser.error(f"there is no target {', '.join(sorted(unknown))}; there are {', '.join((*DELTA, *NAMES))}")
    if options.alone:
        fuzz(options.targets[0], seconds=options.seconds, found=options.found)
        return
    options.found.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(options.workers) as workers:
        runs = [
            workers.submit(run, name, options.seconds, options.found.resolve())
            for name in options.targets or (*DELTA, *NAMES)
        ]
        failed = [name for name, ok in (each.result() for each in runs) if not ok]
    raise SystemExit(f"found: {', '.join(failed)}" if failed else 0)


def run(name: str, seconds: int, found: Path) -> tuple[str, bool]:
    """Fuzz one target in a process of its own; whether nothing was found. What it said is printed when it ends."""
    began = time.monotonic()
    program = [HERE / "delta.py", name] if name in DELTA else [HERE / "run.py", name, "--alone", "--found", found]
    command = [sys.executable, *map(str, program), "--seconds", str(seconds)]
    ended = subprocess.run(command, check=False, capture_output=True, text=True, errors="replace", cwd=found)
    runs = next((line.split()[-1] for line in ended.stderr.splitlines() if "number_of_executed_units" in line), "no")
    outcome = "FOUND" if ended.returncode else "nothing found"
    print(f"{name}: {runs} runs in {time.monotonic() - began:.0f} s: {outcome}", flush=True)
    if ended.returncode:
        lines = [line for line in (ended.stdout + ended.stderr).splitlines() if not line.startswith(("#", "INFO"))]
        print("\n".join(lines)[-8000:])
    return name, ended.returncode == 0


def fuzz(name: str, *, seconds: int, found: Path) -> None:
    """Fuzz a target until the time is up. Never returns."""
    import atheris

    sys.path.insert(0, str(HERE.parent))
    from support.fuzz import TARGETS, kept

    target = TARGETS[name]
    with atheris.instrument_imports(include=[*target.instrumented]):
        read = target.load().read
    folders = [tempfile.mkdtemp(prefix="whimbrel-fuzz-") for _ in range(2)]
    inputs = [*target.seeds(), *(path.read_bytes() for path in kept(name))]
    for number, content in enumerate(inputs):
        Path(folders[1], f"{number}").write_bytes(content)
    limits = [f"-max_total_time={seconds}", "-rss_limit_mb=1536", "-timeout=10", f"-max_len={target.longest}"]
    places = [f"-artifact_prefix={found}{os.sep}{name}-", *folders]
    atheris.Setup([sys.argv[0], *limits, "-print_final_stats=1", "-runs=-1", *places], read)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
