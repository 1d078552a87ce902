"""A server of tests over TLS, with a certificate that no machine knows."""

import datetime
import ipaddress
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from support.repository import Server, handler_of


@contextmanager
def over_tls(server: Server, folder: Path, *, name: str = "127.0.0.1") -> Iterator[tuple[str, Path]]:
    """Its https:// address, and the file of its certificate, which is `name`'s."""
    place, secret = certificate(folder, name=name)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(place, secret)
    with Quiet(("127.0.0.1", 0), handler_of(server)) as http:
        http.socket = context.wrap_socket(http.socket, server_side=True, do_handshake_on_connect=False)
        thread = threading.Thread(target=http.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        yield f"https://127.0.0.1:{http.server_address[1]}", place
        http.shutdown()
        thread.join()


def certificate(folder: Path, *, name: str, begins_h: float = -1.0, ends_h: float = 1.0) -> tuple[Path, Path]:
    """A certificate for `name`, signed by itself, and its key. `begins_h`, `ends_h`: hours from now."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    try:
        names = [x509.IPAddress(ipaddress.ip_address(name)), x509.DNSName("localhost")]
    except ValueError:
        names = [x509.DNSName(name)]
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + datetime.timedelta(hours=begins_h))
        .not_valid_after(now + datetime.timedelta(hours=ends_h))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    place, secret = folder / "server.pem", folder / "server.key"
    place.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    secret.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return place, secret


class Quiet(ThreadingHTTPServer):
    """A handshake that fails is what these tests are about."""

    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass
