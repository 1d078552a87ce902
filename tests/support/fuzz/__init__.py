"""The parsers of bytes from others, each as a function that fuzzers and tests call: `TARGETS`.

A target is a module of this folder. Its `read` takes any bytes and returns, whatever they are: what Whimbrel raises on
purpose is caught there, and anything else is a finding. Its `seeds` are valid inputs, made of the golden vectors. What
was found lies in `tests/fuzz/corpus/<target>`.
"""

import importlib
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType

import msgspec

CORPUS = Path(__file__).parents[2] / "fuzz" / "corpus"


class Target(msgspec.Struct, frozen=True):
    """A parser. `instrumented`: the packages whose branches guide a fuzzer. `longest`: the most bytes to try."""

    module: str
    instrumented: tuple[str, ...]
    longest: int = 65536

    def load(self) -> ModuleType:
        return importlib.import_module(f"support.fuzz.{self.module}")

    def run(self, content: bytes) -> None:
        self.load().read(content)

    def seeds(self) -> Iterable[bytes]:
        seeds: Iterable[bytes] = self.load().seeds()
        return seeds


_AGENT = "whimbrel.agent"
TARGETS = {
    each.module: each
    for each in (
        Target("documents", ("whimbrel.model", "whimbrel.policy")),
        Target("reports", ("whimbrel.health", "whimbrel.trust", "whimbrel.server.http", "whimbrel.model.documents")),
        Target("metadata", (f"{_AGENT}.tuf_client", f"{_AGENT}.metadata_fetcher", f"{_AGENT}.floors", "tuf")),
        Target("archives", (f"{_AGENT}.bundle", "whimbrel.packing", "whimbrel.model.paths")),
        Target("model_files", (f"{_AGENT}.probes.structure", "whimbrel.model", "whimbrel.delta.containers")),
        Target("texts", ("whimbrel.flows.files", "whimbrel.model.selector_text", "whimbrel.cli.option_values"), 8192),
        Target("provenance", ("whimbrel.interop.model_signing", "whimbrel.model", "whimbrel.flows.files.recipe_file")),
        Target("answers", (f"{_AGENT}.answers", f"{_AGENT}.backoff"), 4096),
    )
}


def kept(name: str) -> list[Path]:
    """What was found for a target, and must never harm again."""
    return sorted((CORPUS / name).glob("*"))
