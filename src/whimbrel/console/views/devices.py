"""The inventory, and the page of one device."""

import msgspec

from whimbrel.console.views.rollout import EventLine


class DeviceLine(msgspec.Struct, frozen=True, kw_only=True):
    """A device in the list. `runs`: model and version."""

    device_id: str
    labels: tuple[str, ...]
    runs: tuple[str, ...]
    heard_at: float
    state: str
    tone: str


class DevicesPage(msgspec.Struct, frozen=True, kw_only=True):
    """A part of the inventory. `after`: where the next part begins; "" for none."""

    devices: tuple[DeviceLine, ...]
    selector: str
    model: str
    version: str
    show: str
    models: tuple[str, ...]
    after: str
    query: str


class ModelOnDeviceLine(msgspec.Struct, frozen=True, kw_only=True):
    """What a device runs of a model. `waits_for`: what holds up its next version, in its own words."""

    model: str
    version: str
    since: float | None
    heard_at: float
    waits_for: str
    waits_told_at: float | None
    build: str


class PlaceLine(msgspec.Struct, frozen=True, kw_only=True):
    """A place of the device in a rollout or experiment."""

    comparison: str
    place: str
    words: str


class DevicePage(msgspec.Struct, frozen=True, kw_only=True):
    """One device."""

    device_id: str
    state: str
    tone: str
    sentence: str
    enrolled_at: float
    heard_at: float
    admission: str
    has_key: bool
    labels: tuple[tuple[str, str, str], ...]  # name, value, whose word it is
    models: tuple[ModelOnDeviceLine, ...]
    places: tuple[PlaceLine, ...]
    events: tuple[EventLine, ...]
    blocked: bool
    may_change: bool


class DeviceQuestion(msgspec.Struct, frozen=True, kw_only=True):
    """What a person is asked before a device is blocked, let in again or removed."""

    device_id: str
    act: str
    title: str
    then: tuple[str, ...]
    button: str
    danger: bool
