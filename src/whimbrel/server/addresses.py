"""Network addresses: where a server listens, whose requests a proxy brings, and which clients count as one."""

import ipaddress
import os
import socket
from collections.abc import Iterable

from whimbrel import limits
from whimbrel.errors import Unavailable, UntrustedInput, reason_of

LOOPBACK = ("127.0.0.0/8", "::1/128")
_SITE_BITS = 64  # of an IPv6 address: what one customer of a provider gets, RFC 6177


class Networks:
    """Addresses and networks, such as those of trusted proxies. Raises `UntrustedInput` for one that is none."""

    def __init__(self, texts: Iterable[str]) -> None:
        self.texts = tuple(texts)
        try:
            self._networks = [ipaddress.ip_network(text, strict=False) for text in self.texts]
        except ValueError as error:
            raise UntrustedInput(
                f"{error}; expected an address or a network of a proxy, such as 10.0.0.7 or 10.0.0.0/24"
            ) from error

    def include(self, host: str) -> bool:
        """Whether an address is in one of them. `host`: as a socket tells it."""
        try:
            address = ipaddress.ip_address(host.partition("%")[0])
        except ValueError:
            return False
        mapped = getattr(address, "ipv4_mapped", None) or address
        return any(mapped in network for network in self._networks)

    def client_of(self, host: str) -> str | None:
        """What a connection or request from `host` counts for. None for a trusted proxy: that is many clients."""
        return None if self.include(host) else site_of(host)


def site_of(host: str) -> str:
    """What a client counts for: an IPv4 address, or the network of an IPv6 address. Any other text is its own."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host[: limits.NAME_CHARS]
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return str(ipaddress.ip_network((address, _SITE_BITS), strict=False))
    return str(address)


def bind(address: str) -> socket.socket:
    """A listening socket at `host:port`. Raises `UntrustedInput` for no such address, `Unavailable` for one in use."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or int(port) > 65535:
        raise UntrustedInput(f"{address!r} is no address; expected host:port, such as 127.0.0.1:8470")
    host = host.strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # The protocol's number is what asyncio asks for before it sets TCP_NODELAY on a connection. `socket.create_server`
    # leaves it 0, and then each answer on a kept connection waits 40 ms for the other side's delayed acknowledgement.
    opened = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        if os.name == "posix":  # elsewhere the option would let two servers share a port
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        opened.bind((host, int(port)))
        opened.listen(limits.WAITING_CONNECTIONS)
        return opened
    except OSError as error:
        opened.close()
        raise Unavailable(
            f"cannot listen on {address}: {reason_of(error)}; stop what uses it, or name another with --listen"
        ) from error


def address_of(opened: socket.socket) -> str:
    """`host:port`, as a URL has it."""
    host, port = opened.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
