"""What is wrong with a server's surroundings? It is said in one sentence when a server starts, and not when it hurts.

1. Refused: a folder that has to be written and cannot be. (A database that is newer than the program is refused by
   `Database.migrate`, and a port in use by `bind`.)
2. Warned of: keys, tokens and settings that every user of the machine may read or change, offline keys beside the
   server, and an admin API that other machines reach in plain HTTP. A server goes on all the same: devices need it to
   go back, too. See ADR 64.

Called by `running`, before and after it opens its sockets.
"""

import ipaddress
import os
import shlex
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from whimbrel.durable import trouble, try_to_write
from whimbrel.errors import DiskFull, Unavailable
from whimbrel.server.config import FILE, Folder

_NAMED = 3  # files that a sentence names; it counts the rest


def check_folders(folder: Folder, *, database: Path | None) -> None:
    """Raises `Unavailable` where a folder cannot be written that a server writes. `database`: of an SQLite file."""
    written = {"the database": database, "signed files and artifacts": folder.artifacts_folder}
    for what, path in written.items():
        if path is None:
            continue
        try:
            if not path.is_dir():
                path.mkdir(parents=True)
            try_to_write(path, doing=f"writing {what}")
        except DiskFull:
            raise
        except (OSError, Unavailable) as error:
            reason = trouble(error, doing=f"writing {what}") if isinstance(error, OSError) else error
            raise Unavailable(
                f"{reason}; a server writes there: start it as a user who may, or name another place in {FILE}"
            ) from error


def exposed_files(folder: Folder) -> str | None:
    """The sentence about secrets that every user of this machine may read. None where there are none (POSIX)."""
    if os.name != "posix":
        return None
    exposed = [path for path in _secrets(folder) if _mode(path) & stat.S_IRWXO]
    settings = folder.path / FILE
    if _mode(settings) & (stat.S_IRWXO if folder.config.has_password else stat.S_IWOTH):
        exposed.append(settings)
    if not exposed:
        return None
    names = [str(path.relative_to(folder.path) if path.is_relative_to(folder.path) else path) for path in exposed]
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    listed = ", ".join(names[:_NAMED]) + more
    command = f"chmod o= {' '.join(shlex.quote(str(path)) for path in exposed)}"
    return (
        f"every user of this machine may read or change {listed}, and so act as this server or its operator; "
        f"run: {command}; then make new ones if somebody may have used that"
    )


def offline_keys_beside(folder: Folder) -> str | None:
    """The sentence about keys that sign versions and lie beside the server. None where they are elsewhere."""
    try:
        names = {path.name.split(".")[0] for path in folder.offline_keys.iterdir() if path.suffix in {".pem", ".json"}}
        names -= {"roles-seen"}  # what the folder remembers is no key
    except OSError:
        return None
    if not names:
        return None
    amount = "1 key" if len(names) == 1 else f"{len(names)} keys"
    return (
        f"keys/offline lies beside this server ({amount}): who breaks in here could sign versions; move the "
        "folder to the machine of who publishes, and name it there with --keys"
    )


def exposed_admin(host: str, address: str) -> str | None:
    """The sentence about an admin API that other machines reach. `host`: the address that its socket has."""
    if ipaddress.ip_address(host.partition("%")[0]).is_loopback:
        return None
    return (
        f"other machines reach the admin API on {address}, and it speaks plain HTTP: who can listen on the way has the "
        "admin token; use --admin-tls-cert and --admin-tls-key, or --admin-listen 127.0.0.1:8471 with an SSH tunnel"
    )


def _secrets(folder: Folder) -> Iterator[Path]:
    yield from (folder.admin_token, folder.enrol_token)
    if folder.sealing_key.parent != folder.online_keys.resolve():
        yield folder.sealing_key
    for keys in (folder.online_keys, folder.offline_keys):
        with suppress(OSError):  # it is not there (offline keys are elsewhere), or closed to this user, too
            yield from sorted(keys.iterdir())
    for receiver in folder.config.receivers:
        for source in (receiver.url_from, receiver.secret_from):
            if source is not None and source.startswith("file:"):
                yield folder.path / source.removeprefix("file:")


def _mode(path: Path) -> int:
    """The permissions; 0 for a file that is not there."""
    try:
        return path.stat().st_mode
    except OSError:
        return 0
