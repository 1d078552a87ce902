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
