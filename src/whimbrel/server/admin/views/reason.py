"""Why somebody does something by hand: what the admin API takes with such a change.

Who does it is the account of the token that asks, and stands in no body.
"""

from typing import Annotated

from msgspec import Meta

from whimbrel import limits
from whimbrel.model.documents import Document

Because = Annotated[str, Meta(max_length=limits.BECAUSE_CHARS)]


class Reason(Document, frozen=True):
    """Why it is done by hand."""

    because: Because = ""
