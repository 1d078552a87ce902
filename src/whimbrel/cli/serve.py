"""`whimbrel serve`: run a repository's server."""

import asyncio
import logging
from pathlib import Path
from typing import Annotated

import typer

from whimbrel.cli.output import say
from whimbrel.durable import trouble
from whimbrel.errors import UntrustedInput, WhimbrelError
from whimbrel.server.addresses import LOOPBACK
from whimbrel.server.app import Served, serve_until_stopped
from whimbrel.server.config import Folder
from whimbrel.server.event_loop import new_event_loop
from whimbrel.server.logs import LogFormat, fields, start_logging
from whimbrel.server.tls import TlsFiles

log = logging.getLogger(__name__)

_TLS = "TLS"


def serve(
    folder: Annotated[Path, typer.Argument(help="A repository's folder.", envvar="WHIMBREL_REPOSITORY")],
    listen: Annotated[str, typer.Option(help="host:port for devices and static files.")] = "127.0.0.1:8470",
    admin_listen: Annotated[str, typer.Option(help="host:port for people; keep it on loopback.")] = "127.0.0.1:8471",
    tls_cert: Annotated[
        Path | None,
        typer.Option(
            help="For devices: the certificate, with those between it and its authority (PEM). TLS 1.3.",
            rich_help_panel=_TLS,
        ),
    ] = None,
    tls_key: Annotated[Path | None, typer.Option(help="And its private key (PEM).", rich_help_panel=_TLS)] = None,
    admin_tls_cert: Annotated[Path | None, typer.Option(help="The same for people.", rich_help_panel=_TLS)] = None,
    admin_tls_key: Annotated[Path | None, typer.Option(help="And its private key.", rich_help_panel=_TLS)] = None,
    trusted_proxy: Annotated[
        list[str] | None,
        typer.Option(
            help="Address or network of a proxy whose X-Forwarded-For names the clients; repeat it. Default: loopback.",
        ),
    ] = None,
    log_format: Annotated[
        LogFormat, typer.Option(help="Of the log on standard error: text, or json (one object a line).")
    ] = "text",
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log more.")] = False,
) -> None:
    """Run the server: static metadata and artifacts, device API, admin API, controllers. Stops on Ctrl-C or SIGTERM.

    Devices reach only the first listener, as --listen 0.0.0.0:8470 lets them. Give it a certificate, or put a proxy or
    CDN with TLS in front of it. SIGHUP: read the certificates again.

    A database that an older Whimbrel made is brought up first (see `whimbrel migrate`).
    """
    start_logging(log_format, verbose=verbose)

    async def run() -> None:
        opened = Folder.open(folder.resolve())
        served = Served(
            listen,
            admin_listen,
            tls=_tls(tls_cert, tls_key, option="--tls"),
            admin_tls=_tls(admin_tls_cert, admin_tls_key, option="--admin-tls"),
            proxies=tuple(trusted_proxy or LOOPBACK),
            apart=True,
            log_format=log_format,
            verbose=verbose,
        )
        async for listening in serve_until_stopped(opened, served):
            say(f"devices: {listening.devices}/{opened.config.namespace}   people: {listening.admin} (see /schema)")
            say(f"console: {listening.admin}/{opened.config.namespace}/ (in a browser; sign in with a token)")

    try:
        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            runner.run(run())
    except (WhimbrelError, OSError) as error:
        if log_format == "text":
            raise
        reason = trouble(error, doing="serving") if isinstance(error, OSError) else error
        log.error("%s", reason, extra=fields(exit_status=reason.exit_code))  # what reads the log reads this, too
        raise typer.Exit(reason.exit_code) from error


def _tls(certificate: Path | None, key: Path | None, *, option: str) -> TlsFiles | None:
    if certificate is None and key is None:
        return None
    if certificate is None or key is None:
        raise UntrustedInput(f"{option}-cert and {option}-key go together; name the other file, too")
    return TlsFiles(certificate=str(certificate.resolve()), key=str(key.resolve()))
