"""Is a model's line known to be the newest? Only then a version that never ran here is fetched and activated.

1. A model without a floor (its targets role delegates none) asks for nothing.
2. A floor that is expired, missing, of a newer line, or not to be had keeps new versions away. What runs goes on.

Called by the trust client, which judges the floor's role by its own time.
"""

from collections.abc import Callable

from whimbrel.errors import NotFound, Unavailable, UntrustedInput
from whimbrel.model import documents
from whimbrel.model.release import Floor, Line
from whimbrel.trust import roles


def objection_to_line(line: Line, model: str, *, target: Callable[[str], bytes | None]) -> str:
    """Why the line of a model with a floor may not be the newest; "" where it is known to be.

    `target`: the verified document at a path; it raises `UntrustedInput`, `Unavailable`.
    """
    path = roles.floor_path(model)
    try:
        content = target(path)
        if content is None:
            raise NotFound(f"nothing signed names {path}")
        floor = documents.parse(Floor, content, what=path)
    except (UntrustedInput, Unavailable, NotFound) as error:
        return f"a fresh word that line {line.sequence} is the newest ({error})"
    if floor.model != model:
        return f"a fresh word about its line: {path} is about {floor.model!r}"
    if floor.sequence > line.sequence:
        return f"line {floor.sequence}, which is signed to be the newest; line {line.sequence} came"
    return ""
