"""Coverage-guided fuzzing of the delta codec: `python tests/fuzz/delta.py containers|patches|parts --seconds 60`.

`make fuzz` runs all three (run.py, beside this file), and CI does. Needs `atheris`, which has wheels for Linux only:
the suites in `tests/attack/delta` mutate the same corpus without it. What harms is written to the current folder; put
it into `tests/attack/delta/corpus`.

- `containers`: any bytes as a model file, seeded with the corpus.
- `patches`: any bytes as a patch, seeded with the golden patches.
- `parts`: a golden patch whose parts are replaced, with checksums that agree: what the readers of numbers get to see.
"""

import argparse
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import atheris

sys.path.insert(0, str(Path(__file__).parents[1]))

with atheris.instrument_imports(include=["whimbrel.delta"]):
    from support.delta import apply, parse, put_together, take_apart
    from whimbrel.delta import containers
    from whimbrel.delta.artifact import Member
    from whimbrel.delta.summary import summarise
    from whimbrel.errors import UntrustedInput

TESTS = Path(__file__).parents[1]
CORPUS = TESTS / "attack" / "delta" / "corpus"
VECTORS = TESTS / "vectors" / "delta"
PAIRS = [(path.with_suffix(".base").read_bytes(), path.read_bytes()) for path in sorted(VECTORS.glob("*.patch"))]
APART = [take_apart(patch) for _, patch in PAIRS]


def one_container(content: bytes) -> None:
    paths = ("", "m.bin", "m.mlmodel")
    member = Member(paths[len(content) % 3], len(content), lambda offset, size: content[offset : offset + size])
    try:
        tensors = containers.parse(member)
    except UntrustedInput:
        return
    end = 0
    for tensor in tensors:
        if not end <= tensor.offset < tensor.end <= len(content):
            raise AssertionError(f"{tensor} lies outside, or over another")
        end = tensor.end


def one_patch(content: bytes) -> None:
    base = PAIRS[len(content) % len(PAIRS)][0]
    with suppress(UntrustedInput):
        summarise(parse(content))
        apply(base, content, check=False)


def one_part(content: bytes) -> None:
    provider = atheris.FuzzedDataProvider(content)
    index = provider.ConsumeIntInRange(0, len(PAIRS) - 1)
    head, parts = APART[index]
    part = provider.ConsumeIntInRange(0, len(parts) - 1)
    cut = provider.ConsumeIntInRange(0, len(parts[part]))
    fresh = provider.ConsumeBytes(64)
    changed = parts[part][:cut] + fresh + parts[part][cut + len(fresh) :]
    made = [*parts[:part], changed, *parts[part + 1 :]]
    with suppress(UntrustedInput):
        apply(PAIRS[index][0], put_together(head, made), check=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    targets = {"containers": (one_container, CORPUS), "patches": (one_patch, VECTORS), "parts": (one_part, VECTORS)}
    parser.add_argument("what", choices=targets)
    parser.add_argument("--seconds", type=int, default=60)
    options = parser.parse_args()
    target, seeds = targets[options.what]
    limits = [f"-max_total_time={options.seconds}", "-rss_limit_mb=1024", "-timeout=10", "-max_len=65536"]
    # A first folder that does not exist in the repository would be written to: seeds are read-only for libFuzzer.
    atheris.Setup([sys.argv[0], *limits, "-print_final_stats=1", "-runs=-1", str(_scratch()), str(seeds)], target)
    atheris.Fuzz()


def _scratch() -> Path:
    return Path(tempfile.mkdtemp(prefix="whimbrel-fuzz-"))


if __name__ == "__main__":
    main()
