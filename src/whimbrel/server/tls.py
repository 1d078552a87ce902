"""A listener's certificate: TLS 1.3 alone, read again when the files have changed and a person says so (SIGHUP).

1. A certificate is taken wholly or not at all: files that are not understood, or do not belong together, change
   nothing, and the log says why.
2. Connections that are open keep what they began with. New ones get the new certificate.
"""

import logging
import ssl
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509

from whimbrel.durable import trouble
from whimbrel.errors import UntrustedInput, WhimbrelError
from whimbrel.model.documents import Document
from whimbrel.server.logs import fields

log = logging.getLogger(__name__)

_EXPIRES_SOON = timedelta(days=14)  # certificates that live 90 days are renewed 30 days before their end


class TlsFiles(Document, frozen=True):
    """Paths of PEM files: the certificate with those between it and its authority, and its private key."""

    certificate: str
    key: str


class Certificate:
    """The certificate of one listener. `clock`: POSIX seconds.

    Raises `UntrustedInput` or `Unavailable` where its files cannot be used.
    """

    def __init__(self, files: TlsFiles, *, clock: Callable[[], float]) -> None:
        self._files, self._clock = files, clock
        self.context = self._read()

    def read_again(self) -> bool:
        """Take what the files hold now. Whether that was possible; if not, the certificate of before stays."""
        try:
            self.context = self._read()
        except WhimbrelError as error:
            log.error("the certificate of before stays in use: %s", error)
            return False
        return True

    def _read(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.set_alpn_protocols(["http/1.1"])
        certificate, key = Path(self._files.certificate), Path(self._files.key)
        try:
            leaf = x509.load_pem_x509_certificates(certificate.read_bytes())[0]
            key.read_bytes()  # so that an error names the file
            context.load_cert_chain(certificate, key, password=_refuse_password)
        except ssl.SSLError as error:
            raise UntrustedInput(
                f"{certificate} and {key} cannot be used together ({error.reason or error}); expected a certificate, "
                "with those between it and its authority, and its unencrypted private key, as PEM"
            ) from error
        except OSError as error:
            raise trouble(error, doing="reading the certificate") from error
        except (ValueError, IndexError) as error:
            raise UntrustedInput(f"{certificate} is no certificate in PEM form: {error}") from error
        ends, now = leaf.not_valid_after_utc, datetime.fromtimestamp(self._clock(), UTC)
        log.info("a certificate is in use", extra=fields(file=certificate, expires=ends.isoformat()))
        if ends - now < _EXPIRES_SOON:
            log.warning(
                "%s %s at %s; put a new one there, and send SIGHUP to this server",
                certificate,
                "expired" if ends < now else "expires",
                ends.isoformat(),
            )
        return context


def _refuse_password() -> str:
    raise UntrustedInput("the private key is encrypted; a server that starts by itself cannot ask for its password")
