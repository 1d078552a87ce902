"""Every error that Whimbrel raises on purpose, as one tree: its branches say who is to blame.

    WhimbrelError
    ├── UntrustedInput       the other side is wrong: bad bytes, bad fields, bad signature. Do not retry.
    ├── Unavailable          nobody is wrong, try again later: network, locked database.
    │   ├── DiskFull           there is no room: somebody has to make some first.
    │   └── TooMany            more came at once than is let in.
    ├── Refused              policy says no: the request is well-formed, and not allowed now.
    │   ├── NotFound         the named thing does not exist.
    │   ├── Conflict         somebody else was first, or it exists already with other contents.
    │   └── NotAllowed       the caller may not do this: no token, a wrong one, or a missing key.
    └── InvariantBroken      our bug.
        └── IllegalTransition  a state machine was asked for a pair that is not in its table.

A message says what was found, what was expected and what to do next. The command line prints it and exits with
`exit_code`; the HTTP servers answer with `status` and a problem document (RFC 9457).
"""

import errno

_REASONS = {
    errno.ENOENT: "it does not exist",
    errno.ENOTDIR: "a part of its path is no folder",
    errno.EISDIR: "it is a folder, and a file was expected",
    errno.EACCES: "you have no permission for it",
    errno.EPERM: "you have no permission for it",
    errno.EEXIST: "it exists already",
    errno.ENOTEMPTY: "it is not empty",
    errno.ELOOP: "its links lead in a circle",
    errno.ENAMETOOLONG: "its name is too long",
    errno.EMFILE: "this process has too many files open",
    errno.ENFILE: "this machine has too many files open",
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "its quota of the disk is used up",
    errno.EROFS: "the file system is read-only",
    errno.EIO: "the disk cannot read it",
    errno.EXDEV: "it is on another file system",
    errno.ETXTBSY: "it is running",
    errno.ECONNREFUSED: "nothing listens there",
    errno.ECONNRESET: "the other side closed the connection",
    errno.EPIPE: "the other side closed the connection",
    errno.ETIMEDOUT: "no answer came in time",
    errno.EHOSTUNREACH: "no way leads there",
    errno.ENETUNREACH: "no network leads there",
    errno.EADDRINUSE: "something else uses it already",
    errno.EADDRNOTAVAIL: "this machine has no such address",
}


class WhimbrelError(Exception):
    """Anything that Whimbrel raises on purpose."""

    exit_code = 1
    status = 500
    title = "Whimbrel failed"


class UntrustedInput(WhimbrelError):
    """The other side is wrong."""

    exit_code = 2
    status = 400
    title = "The input cannot be accepted"


class Unavailable(WhimbrelError):
    """Try again later."""

    exit_code = 3
    status = 503
    title = "Not available now"


class DiskFull(Unavailable):
    """There is no room on a disk, or a quota is used up."""

    status = 507
    title = "The disk is full"


class TooMany(Unavailable):
    """More came at once than is let in."""

    status = 429
    title = "Too many at once"


class Refused(WhimbrelError):
    """Policy says no."""

    exit_code = 4
    status = 403
    title = "Refused"


class NotFound(Refused):
    """The named thing does not exist."""

    status = 404
    title = "Not found"


class Conflict(Refused):
    """Somebody else was first, or the thing exists already with other contents."""

    status = 409
    title = "Conflict"


class NotAllowed(Refused):
    """The caller may not do this."""

    status = 401
    title = "Not allowed"


class InvariantBroken(WhimbrelError):
    """Our bug."""

    exit_code = 70
    title = "Whimbrel has a bug"


class IllegalTransition(InvariantBroken):
    """A state machine was asked for a pair that is not in its table; nothing was changed."""

    status = 409
    title = "Conflict"  # over HTTP a person asked for it, of something that is over by now


def reason_of(error: BaseException) -> str:
    """Why something failed, in words for people: of the system's errors and of Python's; of ours, what they say."""
    if isinstance(error, UnicodeDecodeError):
        return f"it is no UTF-8 text: see its byte {error.start + 1}"
    if isinstance(error, RecursionError):
        return "it is nested too deep"
    if isinstance(error, TimeoutError) and not error.strerror:
        return "no answer came in time"
    if isinstance(error, OSError) and error.errno is not None:
        own = type(error).__module__ == "builtins"  # errors of ssl and of names have other numbers
        known = _REASONS.get(error.errno) if own else None
        return known or " ".join((error.strerror or type(error).__name__).split())
    return " ".join(str(error).split()) or type(error).__name__
