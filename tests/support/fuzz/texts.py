"""What people and pipelines write: YAML files (cards, plans, experiments, settings), selectors, windows, variants.

The first byte says which one it is.
"""

from collections.abc import Callable, Iterator

from whimbrel.cli.option_values import duration_s, window_of
from whimbrel.errors import WhimbrelError
from whimbrel.flows.files.card import read_card
from whimbrel.flows.files.experiment_file import read_experiment
from whimbrel.flows.files.plan_file import read_plan
from whimbrel.flows.files.plan_template import plan_template
from whimbrel.flows.files.settings_file import read_limit, read_settings
from whimbrel.flows.files.variant_spec import parse_variant
from whimbrel.model.selector_text import read_selector
from whimbrel.plan.objectives import read_objective

_CARD = """model_version: 1.2.0
training: {dataset: speech-2026, framework: torch 2.8, date: 2026-03-01}
metrics: {accuracy: 0.91}
compatibility: {hardware: [pi3, pi4], os_min_version: "12"}
probe: {latency_ms_max: 20, memory_mib_max: 100}
local_limits: {crash_loop: 3, error_rate_max: 5%}
"""
_EXPERIMENT = """experiment:
  name: louder
  variants:
    - {id: control, model_version: wake@1.0.0, traffic_percent: 50}
    - {id: louder, model_version: wake@2.0.0, traffic_percent: 50}
  primary_metric: accuracy
  guardrail_metrics: [error_rate, {metric: inference_latency_p99, max_increase_percent: 10}]
"""
_SETTINGS = """refresh_s: 60
conditions: {charging: true, windows: ["mon-fri 22:00-06:00 local"]}
objectives: ["accuracy >= 84% weekly, take back"]
local_limits: {error_rate_max: 5%}
"""


def _objective(text: str) -> None:
    try:
        read_objective(text)
    except ValueError:
        return


_READERS: tuple[tuple[Callable[[str], object], str], ...] = (
    (lambda text: read_card(text, what="card.yaml"), _CARD),
    (lambda text: read_plan(text, what="plan.yaml"), plan_template("wake@2.0.0")),
    (lambda text: read_experiment(text, what="experiment.yaml"), _EXPERIMENT),
    (lambda text: read_settings(text, what="settings.yaml"), _SETTINGS),
    (read_selector, "hardware=pi3,os in (linux,android),!old,version>=2"),
    (window_of, "mon-fri 22:00-06:00 Europe/Oslo"),
    (parse_variant, "cpu,hardware=pi3,runtime.onnxruntime>=1.15"),
    (lambda text: duration_s(text, what="--timeout"), "90s"),
    (lambda text: read_limit("error_rate_max", text), "5%"),
    (_objective, "latency_p99_ms < 10 daily, take back"),
)


def read(content: bytes) -> None:
    reader, _ = _READERS[content[0] % len(_READERS)] if content else _READERS[0]
    try:
        reader(content[1:].decode("utf-8", "surrogateescape"))
    except WhimbrelError as error:
        str(error)


def seeds() -> Iterator[bytes]:
    for number, (_, text) in enumerate(_READERS):
        yield bytes([number]) + text.encode()
