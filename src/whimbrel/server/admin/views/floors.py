"""What the admin API takes about floors. It answers with `FloorState` (flows/publishing/set_floor.py)."""

from whimbrel.model.documents import Document
from whimbrel.server.admin.views.reason import Because


class NewFloor(Document, frozen=True):
    """PUT floor: the document and the role that lists it; `targets` where the role is delegated with it."""

    floor: bytes
    role: bytes
    targets: bytes | None = None


class LiftedFloor(Document, frozen=True):
    """POST floor/lift: the targets role that delegates no floor of the model any more."""

    targets: bytes
    because: Because = ""
