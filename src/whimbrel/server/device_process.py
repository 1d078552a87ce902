"""The process of the device listener: how it is started, told, and started again, and what it does itself.

Two processes make one server. The first has people's listener, the controllers and the alerts, and owns both listening
sockets. The second has only the device listener. A flood of devices takes its processor time, its memory and its
descriptors there; a rollback in the first one is not slowed by the interpreter's lock. See ADR 85.

They speak over a pair of sockets, a JSON document a line:
    first -> second    "reload" (read the certificate again), "stop" (finish what is under way, and end)
    second -> first    {"listening": true}, then {"artifact_bytes", "document_bytes", "written"} when they changed

What can go wrong, and what happens then:
1. The second process is killed, or ends by a bug: it is started again after a second, then ever less often. The socket
   stays open meanwhile, so devices wait for a moment and are not refused.
2. The first process is killed: a thread of the second sees the end of their channel, and ends its process at once, so
   that the ports are free for the next start.
3. A person stops the server by Ctrl-C, which every process of a terminal gets: the second one leaves that to the first.
"""

import asyncio
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import msgspec

from whimbrel import limits
from whimbrel.errors import Unavailable
from whimbrel.model.documents import Document, encode, parse
from whimbrel.server.addresses import Networks
from whimbrel.server.config import Folder
from whimbrel.server.connection import Bounds
from whimbrel.server.descriptors import room_for
from whimbrel.server.device_listener import DeviceListener
from whimbrel.server.event_loop import new_event_loop
from whimbrel.server.logs import LogFormat, fields, start_logging
from whimbrel.server.static import BytesSent
from whimbrel.server.tls import Certificate, TlsFiles
from whimbrel.stores.blobs import Blobs
from whimbrel.stores.database import Database
from whimbrel.stores.inbox import open_inbox

log = logging.getLogger(__name__)

_STEADY_S = 60.0  # a process that ran so long and ended is started again at once
_LINE_BYTES = 64 * limits.KIB


class DeviceOrder(Document, frozen=True):
    """What the second process is started with. `listen_fd`, `channel_fd`: descriptors that it inherits."""

    folder: str
    listen_fd: int
    channel_fd: int
    proxies: tuple[str, ...]
    log_format: LogFormat
    verbose: bool
    tls: TlsFiles | None = None


class DeviceWord(Document, frozen=True):
    """What the second process tells: bytes that went out, and whether messages have been stored."""

    listening: bool = False
    artifact_bytes: int = 0
    document_bytes: int = 0
    written: bool = False


class DeviceProcess:
    """The second process, seen from the first. `run` keeps it alive until `stop`."""

    def __init__(self, order: DeviceOrder, opened: socket.socket, *, sent: BytesSent, written: Callable[[], None]):
        self._order, self._socket, self.sent, self._written = order, opened, sent, written
        self._process: asyncio.subprocess.Process | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._stopping = asyncio.Event()
        self.started = False

    async def run(self) -> None:
        """Start it, and start it again whenever it ends. Raises `Unavailable` where the first start fails."""
        wait_s = 1.0
        while not self._stopping.is_set():
            began = time.monotonic()
            status = await self._run_once()
            if self._stopping.is_set():
                return
            if not self.started:
                raise Unavailable(
                    f"the process of the device listener ended at its start (status {status}); see the log"
                )
            wait_s = 1.0 if time.monotonic() - began > _STEADY_S else min(2 * wait_s, limits.DEVICE_PROCESS_AGAIN_S)
            log.error(
                "the process of the device listener ended (status %s); it is started again in %g s", status, wait_s / 2
            )
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), wait_s / 2)

    async def stop(self) -> None:
        """Let it finish what is under way and end; kill it where that takes too long."""
        self._stopping.set()
        self._socket.close()
        self._tell("stop")
        if self._process is not None:
            try:
                await asyncio.wait_for(self._process.wait(), limits.DEVICE_PROCESS_STOP_S)
            except TimeoutError:
                log.error("the process of the device listener did not end in time; it was killed")
                self._process.kill()
                await self._process.wait()

    def read_certificate_again(self) -> None:
        """For new connections."""
        self._tell("reload")

    def _tell(self, word: str) -> None:
        """Say a word to it. One that is not there hears it by its next start."""
        if self._writer is not None and not self._writer.is_closing():
            self._writer.write(encode(word) + b"\n")

    async def _run_once(self) -> int:
        ours, its = socket.socketpair()
        order = msgspec.structs.replace(self._order, listen_fd=self._socket.fileno(), channel_fd=its.fileno())
        with its:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-P",  # no module is taken from the folder in which a person happens to be
                "-m",
                __name__,
                encode(order).decode(),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                pass_fds=(order.listen_fd, order.channel_fd),
            )
        reader, self._writer = await asyncio.open_connection(sock=ours, limit=_LINE_BYTES)
        try:
            while line := await reader.readline():
                self._hear(parse(DeviceWord, line, what="a word of the device listener's process"))
        except (ConnectionError, ValueError) as error:
            log.warning("the process of the device listener is not understood: %s", error)
            self._process.kill()
        finally:
            self._writer.close()
        return await self._process.wait()

    def _hear(self, word: DeviceWord) -> None:
        if word.listening:
            self.started = True
            log.info("devices are served", extra=fields(process=self._process.pid if self._process else 0))
        self.sent.artifact_bytes += word.artifact_bytes
        self.sent.document_bytes += word.document_bytes
        if word.written:
            self._written()


def main(*, clock: Callable[[], float] = time.time) -> None:
    """Be the second process. The one argument is a `DeviceOrder`. `clock`: POSIX seconds."""
    order = parse(DeviceOrder, sys.argv[1].encode(), what="the order of a device listener's process")
    start_logging(order.log_format, verbose=order.verbose)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # the first process decides, and tells this one
    channel = socket.socket(fileno=order.channel_fd)
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(_serve(order, channel, clock=clock))


async def _serve(order: DeviceOrder, channel: socket.socket, *, clock: Callable[[], float]) -> None:
    written = asyncio.Event()
    folder = Folder.open(Path(order.folder))
    certificate = Certificate(order.tls, clock=clock) if order.tls else None
    database = Database(folder.database_url)
    inbox = open_inbox(folder.config.inbox, stream=folder.config.inbox_stream, database=database)
    try:
        side = DeviceListener(
            folder,
            socket.socket(fileno=order.listen_fd),
            database=database,
            blobs=Blobs.open(folder.config.artifacts, base=folder.path),
            inbox=inbox,
            written=written.set,
            clock=clock,
            bounds=Bounds(connections=room_for(limits.CONNECTIONS)),
            proxies=Networks(order.proxies),
            certificate=certificate,
        )
        loop = asyncio.get_running_loop()

        def obey(word: str) -> None:
            if word == "stop":
                side.listener.stop()
            elif word == "reload":
                side.read_certificate_again()

        threading.Thread(target=_listen_to_first, args=(channel, loop, obey), daemon=True).start()
        telling = asyncio.create_task(_tell_first(channel, side.sent, written, lambda: side.started))
        try:
            await side.run()
        finally:
            telling.cancel()
            await asyncio.gather(telling, return_exceptions=True)
            await inbox.close()
    finally:
        database.close()


def _listen_to_first(channel: socket.socket, loop: asyncio.AbstractEventLoop, obey: Callable[[str], None]) -> None:
    """Words of the first process, in a thread: its end is noticed also while the event loop has much to do."""
    with channel.makefile("rb") as lines:
        for line in lines:
            loop.call_soon_threadsafe(obey, msgspec.json.decode(line, type=str))
    os._exit(1)  # the first process is gone; who follows it needs the port


async def _tell_first(
    channel: socket.socket, sent: BytesSent, written: asyncio.Event, listening: Callable[[], bool]
) -> None:
    told, told_listening = BytesSent(), False
    while True:
        await asyncio.sleep(limits.DEVICE_PROCESS_TELLS_S)
        word = DeviceWord(
            listening=listening() and not told_listening,
            artifact_bytes=sent.artifact_bytes - told.artifact_bytes,
            document_bytes=sent.document_bytes - told.document_bytes,
            written=written.is_set(),
        )
        if word == DeviceWord():
            continue
        told = msgspec.structs.replace(sent)
        told_listening = told_listening or word.listening
        written.clear()
        await asyncio.to_thread(channel.sendall, encode(word) + b"\n")


if __name__ == "__main__":
    main()
