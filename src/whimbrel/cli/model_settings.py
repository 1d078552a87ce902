"""The options of `whimbrel model add` and `model set`, and the settings that they make.

1. Each option is one setting. What is not named is not sent, and the server leaves it as it is.
2. A condition is taken back by its option with `--no-`: it is then asked for no more.
"""

import functools
import inspect
import math
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args

import msgspec
import typer

from whimbrel.cli.option_values import window_of
from whimbrel.cli.signer_files import signer_of
from whimbrel.cli.text_file import read_text
from whimbrel.errors import UntrustedInput
from whimbrel.flows.files.settings_file import read_limit, read_settings
from whimbrel.model.document_errors import sentence
from whimbrel.model.documents import plain
from whimbrel.model.local_limits import LocalLimits
from whimbrel.model.selector_text import read_selector
from whimbrel.plan.objectives import Anomalies, check_objectives, read_objective

T = TypeVar("T")

_CADENCE, _BUDGETS, _CONDITIONS = "Cadence and labels", "Budgets of a publication", "When devices fetch and activate"
_PEOPLE = "Who must agree"
_SIGNERS = "Whose model signature versions must have"
_SECRECY = "Who may have the model"
_MONITORS, _ALONE = "What is watched while a version runs", "What a device decides alone"


def _option(kind: Any, *names: str, text: str, panel: str) -> Any:
    return Annotated[kind, typer.Option(*names, help=text, rich_help_panel=panel, show_default=False)]


def _condition(kind: Any, name: str, text: str) -> dict[str, Any]:
    """An option with a value, and the one that takes it back."""
    parameter = name.replace("-", "_")
    return {
        parameter: _option(kind, f"--{name}", text=text, panel=_CONDITIONS),
        f"no_{parameter}": _option(bool, f"--no-{name}", text=f"Take --{name} back.", panel=_CONDITIONS),
    }


_OPTIONS: dict[str, Any] = {
    "refresh_s": _option(float | None, text="Seconds between a device's refreshes (default 300).", panel=_CADENCE),
    "rollout_refresh_s": _option(
        float | None,
        text="The same while something rolls out, and for a day after it, where it is less (default 30).",
        panel=_CADENCE,
    ),
    "report_s": _option(float | None, text="Seconds between a device's reports (default 300).", panel=_CADENCE),
    "report_label": _option(
        list[str] | None, text="A label that devices may report. Repeat it; it replaces those before.", panel=_CADENCE
    ),
    "hardware_label": _option(str | None, text="The label that names a device's hardware class.", panel=_CADENCE),
    "slice_label": _option(
        list[str] | None,
        text="A further label by which harm is found and taken back alone (os). Repeat it; it replaces those before.",
        panel=_CADENCE,
    ),
    "size_bytes_max": _option(int | None, text="Bytes of the largest variant of a version.", panel=_BUDGETS),
    "metric_min": _option(
        list[str] | None,
        text="NAME=VALUE that a version must reach. Repeat it; it replaces those before.",
        panel=_BUDGETS,
    ),
    "delta_bases": _option(
        int | None,
        text="How many of the newest earlier versions get a direct patch to a new one (default 2); versions that many "
        "devices run get one besides.",
        panel=_BUDGETS,
    ),
    "second_person_above": _option(
        str | None,
        "--second-person-above",
        text="The share of the devices that a rollout may reach by one person's word: 10%. Past it, another person "
        "must approve.",
        panel=_PEOPLE,
    ),
    "no_second_person_above": _option(
        bool, "--no-second-person-above", text="Take --second-person-above back.", panel=_PEOPLE
    ),
    "model_signer_key": _option(
        Path | None, text="The public key (PEM) whose OpenSSF model signature every version must have.", panel=_SIGNERS
    ),
    "model_signer_root": _option(
        Path | None, text="Or root certificates (PEM), one of which must vouch for the signer.", panel=_SIGNERS
    ),
    "model_signer_identity": _option(
        str | None, text="Whom the certificate must name: an e-mail address, URI or host name.", panel=_SIGNERS
    ),
    "no_model_signer": _option(bool, "--no-model-signer", text="Take the demand back.", panel=_SIGNERS),
    "sealed": _option(
        bool | None,
        "--sealed/--no-sealed",
        text="Publish its files encrypted: nothing else is stored or sent, and entitled devices get the key.",
        panel=_SECRECY,
    ),
    "sealed_for": _option(
        str | None,
        "--sealed-for",
        text='The entitled devices, by labels that the server gives them: "tier=pro,site in (a,b)"; "" is every '
        "device that is enrolled.",
        panel=_SECRECY,
    ),
    "objective": _option(
        list[str] | None,
        text='What every version must keep while it runs: "accuracy >= 84% weekly, take back", "latency_p99_ms < 10", '
        '"memory_mb < 50 peak". Repeat it; it replaces those before.',
        panel=_MONITORS,
    ),
    "no_objective": _option(bool, "--no-objective", text="Take every --objective back.", panel=_MONITORS),
    "anomalies": _option(
        str | None,
        text="Where a version departs from its past or from those beside it: off, alert (default) or take_back.",
        panel=_MONITORS,
    ),
    "settings_file": _option(
        Path | None,
        "--settings",
        text="A YAML file of settings, with the names that `model show --json` has; options here win over it.",
        panel=_CADENCE,
    ),
    "local_limit": _option(
        list[str] | None,
        text="NAME=VALUE that each device checks by itself (crash_loop=3, error_rate_max=5%, accuracy_min=84%). "
        "Repeat it; it replaces those before.",
        panel=_ALONE,
    ),
    "no_local_limit": _option(bool, "--no-local-limit", text="Take all local limits back.", panel=_ALONE),
    "unmetered": _option(
        bool | None, "--unmetered/--no-unmetered", text="On an unmetered network only.", panel=_CONDITIONS
    ),
    "charging": _option(bool | None, "--charging/--no-charging", text="While charging only.", panel=_CONDITIONS),
    "idle": _option(bool | None, "--idle/--no-idle", text="While nobody uses the device only.", panel=_CONDITIONS),
    **_condition(float | None, "battery-min", "From this charge on, from 0 to 1; charging satisfies it too."),
    **_condition(
        list[str] | None,
        "window",
        'In this part of the day only: "22:00-06:00", "mon-fri 01:00-05:00 local" (the device\'s own time), '
        '"02:00-04:00 Europe/Oslo"; UTC unless it says. Repeat it: one is enough; they replace those before.',
    ),
    **_condition(int | None, "storage-mib-min", "With so much free storage beyond the version's own need."),
    **_condition(int | None, "metered-mib-a-day", "On a metered network, fetch at most so much a day."),
    **_condition(float | None, "start-jitter-s", "Spread the start of devices over so many seconds."),
}


def with_settings(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options, and what they say as its argument `settings`: the fields of `ModelSettings`."""

    @functools.wraps(command)
    def run(*positional: Any, **arguments: Any) -> None:
        given = {name: arguments.pop(name) for name in _OPTIONS}
        command(*positional, settings=settings_of(given), **arguments)

    own = [each for each in inspect.signature(command, eval_str=True).parameters.values() if each.name != "settings"]
    options = [
        inspect.Parameter(
            name, inspect.Parameter.KEYWORD_ONLY, default=False if name.startswith("no_") else None, annotation=kind
        )
        for name, kind in _OPTIONS.items()
    ]
    names = [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in own[1:]]
    run.__signature__ = inspect.Signature([own[0], *names, *options])  # type: ignore[attr-defined]
    return run


def checked(kind: type[T], settings: dict[str, Any]) -> T:
    """The settings as a `kind`, before anything is sent. Raises `UntrustedInput` with a sentence for people."""
    try:
        return msgspec.convert(settings, kind, strict=True)
    except msgspec.ValidationError as error:
        raise UntrustedInput(sentence(str(error), settings, kind=kind)) from error


def settings_of(given: dict[str, Any]) -> dict[str, Any]:
    """The settings that options name. Raises `UntrustedInput` for a value that is not understood."""
    path = given["settings_file"]
    filed = {} if path is None else read_settings(read_text(path, "the settings"), what=path.name)
    settings = {
        "refresh_s": given["refresh_s"],
        "rollout_refresh_s": given["rollout_refresh_s"],
        "report_s": given["report_s"],
        "report_labels": given["report_label"] or None,
        "hardware_label": given["hardware_label"],
        "slice_labels": given["slice_label"] or None,
        "size_bytes_max": given["size_bytes_max"],
        "delta_bases": given["delta_bases"],
        "sealed": given["sealed"],
        "sealed_for": None if given["sealed_for"] is None else plain(read_selector(given["sealed_for"])),
        "metrics_min": _floors(given["metric_min"] or []) or None,
        "objectives": _objectives(given["objective"] or [], none=given["no_objective"]),
        "anomalies": _anomalies(given["anomalies"]),
        "conditions": ({**filed.get("conditions", {}), **_conditions(given)}) or None,
    }
    named = {name: value for name, value in settings.items() if value is not None}
    if given["no_second_person_above"]:
        named["second_person_above_percent"] = None
    elif given["second_person_above"] is not None:
        named["second_person_above_percent"] = _percent(given["second_person_above"])
    if (signer := _model_signer(given)) is not None:
        named["model_signer"] = signer
    elif given["no_model_signer"]:
        named["model_signer"] = None
    if given["local_limit"]:
        named["local_limits"] = _local_limits(given["local_limit"])
    elif given["no_local_limit"]:
        named["local_limits"] = None
    return filed | named


def _model_signer(given: dict[str, Any]) -> dict[str, Any] | None:
    key, root, identity = given["model_signer_key"], given["model_signer_root"], given["model_signer_identity"]
    place = key or root
    if place is None:
        if identity is not None:
            raise UntrustedInput("--model-signer-identity needs --model-signer-root, which vouches for the name")
        return None
    if (key is not None and (root is not None or identity is not None)) or given["no_model_signer"]:
        raise UntrustedInput("give --model-signer-key, or --model-signer-root with --model-signer-identity")
    return plain(signer_of(place, method="certificate" if key is None else "key", identity=identity or ""))


def _objectives(given: list[str], *, none: bool) -> list[dict[str, Any]] | None:
    if none:
        return []
    try:
        objectives = [read_objective(each) for each in given]
        check_objectives(objectives)
    except ValueError as error:
        raise UntrustedInput(f"--objective: {error}") from error
    return [msgspec.to_builtins(each) for each in objectives] or None


def _percent(given: str) -> float:
    try:
        percent = float(given.removesuffix("%"))
    except ValueError:
        percent = -1.0
    if not 0 <= percent <= 100:
        raise UntrustedInput(f"--second-person-above {given!r} is not understood; expected a share such as 10%")
    return percent


def _anomalies(given: str | None) -> str | None:
    word = None if given is None else given.replace("-", "_").replace(" ", "_")
    if word is not None and word not in get_args(Anomalies):
        raise UntrustedInput(f"--anomalies {given!r} is not understood; expected {', '.join(get_args(Anomalies))}")
    return word


def _local_limits(given: list[str]) -> dict[str, Any]:
    """The limits as the admin API takes them; those that are not understood are refused here, with all names."""
    limits: dict[str, Any] = {}
    for each in given:
        name, _, value = each.partition("=")
        limits[name] = read_limit(name, value)
    try:
        msgspec.convert(limits, LocalLimits)
    except msgspec.ValidationError as error:
        names = ", ".join(LocalLimits.__struct_fields__)
        raise UntrustedInput(
            f"--local-limit {' '.join(given)} is not understood: {sentence(str(error), limits, kind=LocalLimits)}. "
            f"It takes NAME=VALUE of {names}"
        ) from error
    return limits


def _conditions(given: dict[str, Any]) -> dict[str, Any]:
    for name, value in given.items():
        if name.startswith("no_") and value and given.get(name.removeprefix("no_")):
            option = name.removeprefix("no_").replace("_", "-")
            raise UntrustedInput(f"--{option} and --no-{option} contradict each other; keep one of them")
    named = {
        "unmetered": given["unmetered"],
        "charging": given["charging"],
        "idle": given["idle"],
        "battery_min": given["battery_min"],
        "windows": [window_of(each) for each in given["window"] or []] or None,
        "storage_mib_min": given["storage_mib_min"],
        "metered_mib_a_day": given["metered_mib_a_day"],
        "start_jitter_s": given["start_jitter_s"],
    }
    changes = {name: value for name, value in named.items() if value is not None}
    for name in ("battery_min", "storage_mib_min", "metered_mib_a_day"):
        if given[f"no_{name}"]:
            changes[name] = None
    if given["no_window"]:
        changes |= {"windows": [], "window_utc": None}
    if given["no_start_jitter_s"]:
        changes["start_jitter_s"] = 0
    return changes


def _floors(given: list[str]) -> dict[str, float]:
    floors = {}
    for each in given:
        metric, equals, value = each.partition("=")
        try:
            floors[metric] = float(value)
        except ValueError:
            equals = ""
        if not equals or not math.isfinite(floors[metric]):
            raise UntrustedInput(f"--metric-min {each!r} is not understood; expected NAME=VALUE, as accuracy=0.84")
    return floors
