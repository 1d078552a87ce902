"""Which devices are asked for? A page of the inventory, by id.

1. A page begins behind the id that the page before ended with, so page a million costs what page one costs.
2. Labels are looked at one device after the other. A page looks at a bounded number of devices; where few match, it may
   hold fewer than were asked for, and `after` says where the next one begins. None: there are no more.
"""

from collections import defaultdict

import msgspec

from whimbrel import limits
from whimbrel.flows.devices.ports import InventoryPort
from whimbrel.flows.devices.records import DeviceFilter, DeviceRecord, ModelOnDevice


class DevicePage(msgspec.Struct, frozen=True):
    """Some devices with what they run, by id. `after`: the cursor of the next page."""

    devices: list[tuple[DeviceRecord, list[ModelOnDevice]]]
    after: str | None


def find_devices(port: InventoryPort, asked: DeviceFilter, *, after: str, limit: int) -> DevicePage:
    """At most `limit` devices whose ids come after `after` ("" is before all)."""
    matching: list[DeviceRecord] = []
    looked_at, cursor = 0, after
    portion = limit + 1 if asked.selector.everyone else max(limit + 1, limits.DEVICES_A_QUERY)
    while len(matching) <= limit:
        looked = port.look(asked, after=cursor, limit=portion)
        matching += looked.devices
        looked_at += looked.looked_at
        if looked.looked_at < portion:
            break
        cursor = looked.last
        if len(matching) <= limit and looked_at >= limits.DEVICES_LOOKED_AT:
            return DevicePage(with_models(port, matching), cursor)
    page = matching[:limit]
    return DevicePage(with_models(port, page), page[-1].device_id if len(matching) > limit else None)


def with_models(port: InventoryPort, devices: list[DeviceRecord]) -> list[tuple[DeviceRecord, list[ModelOnDevice]]]:
    """Devices with what each runs, by model."""
    models: dict[str, list[ModelOnDevice]] = defaultdict(list)
    for each in port.models_of([device.device_id for device in devices]):
        models[each.device_id].append(each)
    return [(device, sorted(models[device.device_id], key=lambda each: each.model)) for device in devices]
