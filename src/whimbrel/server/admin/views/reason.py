"""Who does something by hand, and why: what the admin API takes with such a change."""

from typing import Annotated

from msgspec import Meta

from whimbrel.model.documents import Document
from whimbrel.model.ids import END

Because = Annotated[str, Meta(max_length=2000)]
Actor = Annotated[str, Meta(min_length=1, max_length=128, pattern=r"^[^\x00-\x1f\x7f]+" + END)]  # a column, a line


class Reason(Document, frozen=True):
    """Who does it by hand, and why."""

    because: Because = ""
    actor: Actor = "admin"
