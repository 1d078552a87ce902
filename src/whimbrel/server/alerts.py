"""The alert loop of the leading server: every alert that is due is sent, at least once, beside all other work.

Compares: the audit log (`flows/alerts` says which entries are alerts) with the rows of `stores/alerts`, one for each
entry and receiver.
Does: makes the rows that are missing, sends what waits, and writes into the row what became of it.
Killed between sending and writing: the alert is sent once more, with the same key.

1. A receiver that is slow, down or wrong delays nobody: every delivery has its own time limit, a few run at once, and
   the controllers know nothing of them.
2. A delivery that failed is tried again, with exponential backoff and full jitter, or when the receiver asks for it
   (Retry-After). After a day it is given up, and the log and `whimbrel alert list` say so. Where a receiver will never
   accept an alert, it is given up at once.
   Receivers are those that whimbrel.toml has now: it is looked at before every round.
3. Redirects are not followed: only the operator changes an address. Of an answer a few KiB are read.
"""

import asyncio
import logging
import random
import smtplib
import ssl
from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import msgspec

from whimbrel import limits
from whimbrel.console.charts import draw
from whimbrel.console.evidence import evidence_chart
from whimbrel.errors import NotFound, UntrustedInput, WhimbrelError
from whimbrel.flows.alerts import (
    SAID_OF_EXPERIMENTS,
    SAID_OF_NAMESPACES,
    SAID_OF_ROLES,
    Alert,
    event_of,
    grouped,
    wants,
)
from whimbrel.flows.records import AuditRecord
from whimbrel.flows.rollouts.trace import trace
from whimbrel.retry_after import seconds_of
from whimbrel.server.alert_forms import mail, posted
from whimbrel.server.config import CurrentReceivers
from whimbrel.server.receivers import Destination, Receiver, reveal
from whimbrel.stores.alerts import AlertDelivery
from whimbrel.stores.database import Database
from whimbrel.stores.registry import namespaces
from whimbrel.stores.transaction import Stores, all_namespaces, transaction

log = logging.getLogger(__name__)

_PERIOD_S = 1.0
_FINAL = frozenset({400, 401, 403, 404, 410, 413, 415, 422})  # the same request will not be taken later either
_SAID_CHARS = 500


class DeliveryResult(msgspec.Struct, frozen=True):
    """What became of a delivery.

    `said`: the receiver's answer, or the error. `wait_s`: how long the receiver asked us to wait. `final`: another try
    would fail too.
    """

    ok: bool
    said: str
    wait_s: float | None = None
    final: bool = False


class Alerts:
    """The alerts of all namespaces of one database."""

    def __init__(
        self,
        database: Database,
        folder: Path,
        receivers: CurrentReceivers,
        *,
        leads: Callable[[], bool],
        clock: Callable[[], float],
    ) -> None:
        self._database, self._folder, self._leads, self._clock = database, folder, leads, clock
        self._receivers = receivers
        self._introduced: frozenset[str] = frozenset()
        self._looked_at: set[tuple[str, int]] = set()  # audit entries whose rows are made; forgetting costs time only
        self._chance = random.Random()  # noqa: S311 (jitter)

    def introduce(self) -> None:
        """Note new receivers: they get alerts of what happens from now on, and of nothing before."""
        names = frozenset(self._receivers.get())
        if names <= self._introduced:
            return
        now = self._clock()
        with self._database.transaction() as connection:
            for namespace in namespaces(connection):
                Stores(connection, namespace).alerts.introduce(names, now=now)
        self._introduced = names

    async def run(self) -> None:
        """Send alerts while this process leads, until cancelled. Trouble is logged and tried again."""
        while True:
            try:
                if self._leads() and self._receivers.get():
                    await asyncio.to_thread(self.introduce)
                    await self.round()
            except WhimbrelError as error:
                log.warning("alerts could not be looked at: %s", error)
            except Exception:  # a bug must not end all alerts
                log.exception("alerts could not be looked at")
            await asyncio.sleep(_PERIOD_S)

    async def round(self) -> int:
        """Send everything that is due now. Returns how many deliveries were tried."""
        places, receivers = asyncio.Semaphore(limits.ALERTS_AT_ONCE), self._receivers.get()
        due = [
            (namespace, row)
            for namespace in await asyncio.to_thread(all_namespaces, self._database)
            for row in await asyncio.to_thread(self._note_and_list, namespace, receivers)
        ]

        async def deliver(namespace: str, row: AlertDelivery) -> None:
            async with places:
                await self._deliver(namespace, row, receivers[row.receiver])

        await asyncio.gather(*(deliver(namespace, row) for namespace, row in due))
        return len(due)

    def receivers(self) -> Mapping[str, Receiver]:
        """The receivers in use, by name. Raises `UntrustedInput` where their file cannot be understood now."""
        receivers = self._receivers.get()
        if self._receivers.problem is not None:
            raise UntrustedInput(self._receivers.problem)
        return receivers

    async def test(self, namespace: str, name: str, *, actor: str) -> DeliveryResult:
        """Send a receiver a marked test alert now, as `actor`. Raises `NotFound` for no such receiver."""
        receivers = self.receivers()
        receiver = receivers.get(name)
        if receiver is None:
            names = ", ".join(sorted(receivers)) or "none"
            raise NotFound(f"there is no receiver {name!r}; whimbrel.toml has: {names}")
        now = self._clock()
        alert = Alert(
            key=f"{namespace}/test/{name}/{now:.3f}",
            namespace=namespace,
            receiver=name,
            event="held",
            at=now,
            because="this is a test: nothing happened to any rollout",
            actor=actor,
            model="test",
            rollout=f"test-{name}",
            stage=0,
            stage_name="test",
            baseline="1.0.0",
            target="1.1.0",
            test=True,
        )
        return await self._send(alert, reveal(receiver, folder=self._folder), plot=None)

    # --- what is due ---

    def _note_and_list(self, namespace: str, receivers: Mapping[str, Receiver]) -> list[AlertDelivery]:
        """Make the rows of what happened since, and return the alerts that are due."""
        now = self._clock()
        with transaction(self._database, namespace) as stores:
            since = stores.alerts.since()
            looked_at = {number for space, number in self._looked_at if space == namespace}
            fresh = stores.alerts.entries(now=now, without=looked_at)
            for number, entry in fresh:
                self._make_rows(stores, number, entry, receivers, since=since, now=now)
            waiting = [row for row in stores.alerts.waiting(now=now) if row.receiver in receivers]
        self._looked_at |= {(namespace, number) for number, _ in fresh}
        return waiting

    def _make_rows(
        self,
        stores: Stores,
        number: int,
        entry: AuditRecord,
        receivers: Mapping[str, Receiver],
        *,
        since: dict[str, float],
        now: float,
    ) -> None:
        event = event_of(entry)
        if event is None:
            return
        rollout = entry.rollout or ""
        about_experiment = entry.action in SAID_OF_EXPERIMENTS
        plan = stores.registry.rollout(rollout).plan if rollout and not about_experiment else None
        stage = int(entry.evidence.get("stage", 0))
        for name, receiver in receivers.items():
            if entry.at < since.get(name, now) or not wants(plan, name, on=receiver.on, event=event):
                continue
            if stores.alerts.has(name, number):
                continue
            about_model = not rollout and not entry.device
            before = [] if about_model or about_experiment else stores.alerts.earlier(name, rollout)
            old = grouped(event, stage, at=entry.at, before=before, within_s=limits.ALERT_GROUP_S)
            stores.alerts.add(
                AlertDelivery(
                    receiver=name,
                    audit_id=number,
                    rollout=rollout,
                    device=entry.device or "",
                    model=(entry.model or "") if about_model else "",
                    event=event,
                    stage=stage,
                    at=entry.at,
                    state="grouped" if old else "waiting",
                    tries=0,
                    next_at=now,
                    said="the same was told a short time ago" if old else "",
                )
            )

    # --- sending ---

    async def _deliver(self, namespace: str, row: AlertDelivery, receiver: Receiver) -> None:
        try:
            destination = reveal(receiver, folder=self._folder)
            alert, plot = await asyncio.to_thread(self._compose, namespace, row, receiver)
            result = await self._send(alert, destination, plot=plot)
        except WhimbrelError as error:
            result = DeliveryResult(ok=False, said=str(error))
        now, tries = self._clock(), row.tries + 1
        state, next_at = "sent", now
        if not result.ok:
            over = result.final or now - row.at > limits.ALERT_GIVE_UP_S
            state = "given_up" if over else "waiting"
            most = min(limits.ALERT_RETRY_MOST_S, limits.ALERT_RETRY_S * 2 ** min(row.tries, 30))
            wait_s = result.wait_s if result.wait_s is not None else self._chance.uniform(0, most)
            next_at = now + wait_s
            log.warning(
                "alert %s of %s was not told to %s (try %d, %s): %s",
                row.event,
                row.rollout or row.device or row.model or row.event,
                row.receiver,
                tries,
                "given up" if over else f"again in {wait_s:.0f} s",
                result.said,
            )
        after = msgspec.structs.replace(row, state=state, tries=tries, next_at=next_at, said=result.said[:_SAID_CHARS])
        await asyncio.to_thread(self._save, namespace, after)

    def _save(self, namespace: str, row: AlertDelivery) -> None:
        with transaction(self._database, namespace) as stores:
            stores.alerts.save(row)

    def _compose(self, namespace: str, row: AlertDelivery, receiver: Receiver) -> tuple[Alert, bytes | None]:
        """The whole alert, and the plot of its evidence where the receiver's form has a place for it."""
        with transaction(self._database, namespace) as stores:
            registry = stores.registry
            entry = stores.alerts.entry(row.audit_id)
            if row.device:
                return _of_device(namespace, row, entry), None
            if row.model:
                return _of_monitor(namespace, row, entry), None
            if entry.action in SAID_OF_ROLES or entry.action in SAID_OF_NAMESPACES:
                return _of_role(namespace, row, entry), None
            if entry.action in SAID_OF_EXPERIMENTS:
                return _of_experiment(namespace, row, entry, stores=stores), None
            rollout = registry.rollout(row.rollout)
            versions = {v.serial: v.semantic_version for v in registry.versions(rollout.model)}
            pictured = receiver.form == "email" or receiver.plot
            points = trace(registry, stores.fleet, rollout.id) if pictured else []
        stages = rollout.plan.stages
        alert = Alert(
            key=f"{namespace}/{row.audit_id}/{row.receiver}",
            namespace=namespace,
            receiver=row.receiver,
            event=event_of(entry) or "held",
            at=entry.at,
            because=entry.because,
            actor=entry.actor,
            model=rollout.model,
            rollout=rollout.id,
            stage=row.stage,
            stage_name=stages[min(row.stage, len(stages) - 1)].name,
            baseline=versions.get(rollout.baseline or 0, "no version"),
            target=versions.get(rollout.target, str(rollout.target)),
            evidence=entry.evidence,
        )
        title = f"{rollout.model} {alert.baseline} → {alert.target}"
        return alert, draw(evidence_chart(points, title=title), "png") if points else None

    async def _send(self, alert: Alert, destination: Destination, *, plot: bytes | None) -> DeliveryResult:
        result = await self._try_to_send(alert, destination, plot=plot)
        return msgspec.structs.replace(result, said=destination.without_secrets(result.said))

    async def _try_to_send(self, alert: Alert, destination: Destination, *, plot: bytes | None) -> DeliveryResult:
        try:
            async with asyncio.timeout(limits.ALERT_SEND_S):
                if destination.receiver.form == "email":
                    return await asyncio.to_thread(self._mail, alert, destination, plot)
                return await self._post(alert, destination, plot)
        except TimeoutError:
            return DeliveryResult(ok=False, said=f"no answer within {limits.ALERT_SEND_S:.0f} s")

    async def _post(self, alert: Alert, destination: Destination, plot: bytes | None) -> DeliveryResult:
        request = posted(alert, destination, plot=plot, now=self._clock())
        try:
            async with (
                httpx.AsyncClient(follow_redirects=False, timeout=limits.ALERT_SEND_S, trust_env=False) as client,
                client.stream("POST", destination.url, content=request.body, headers=request.headers) as answer,
            ):
                return await _read(answer, now=self._clock())
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            return DeliveryResult(ok=False, said=f"{type(error).__name__}: {error}".rstrip(": "))

    def _mail(self, alert: Alert, destination: Destination, plot: bytes | None) -> DeliveryResult:
        parts = urlsplit(destination.url)
        host, secure = parts.hostname or "", parts.scheme == "smtps"
        port = parts.port or (465 if secure else 587 if parts.scheme == "smtp+starttls" else 25)
        try:
            with _smtp(host, port, secure=secure) as smtp:
                if parts.scheme == "smtp+starttls":
                    smtp.starttls(context=ssl.create_default_context())
                if destination.receiver.user:
                    smtp.login(destination.receiver.user, destination.secret)
                refused = smtp.send_message(mail(alert, destination, plot=plot))
        except smtplib.SMTPResponseException as error:
            text = error.smtp_error.decode("utf-8", "replace") if isinstance(error.smtp_error, bytes) else ""
            return DeliveryResult(ok=False, said=f"{error.smtp_code} {text}", final=error.smtp_code >= 550)
        except (smtplib.SMTPException, OSError) as error:
            return DeliveryResult(ok=False, said=f"{type(error).__name__}: {error}")
        mailboxes = len(destination.receiver.to)
        return DeliveryResult(ok=True, said=f"accepted for {mailboxes - len(refused)} of {mailboxes} mailboxes")


def _of_device(namespace: str, row: AlertDelivery, entry: AuditRecord) -> Alert:
    return Alert(
        key=f"{namespace}/{row.audit_id}/{row.receiver}",
        namespace=namespace,
        receiver=row.receiver,
        event=event_of(entry) or "duplicate_identity",
        at=entry.at,
        because=entry.because,
        actor=entry.actor,
        device=row.device,
        evidence=entry.evidence,
    )


def _of_role(namespace: str, row: AlertDelivery, entry: AuditRecord) -> Alert:
    """Of a signed role, or of the namespace as a whole."""
    return Alert(
        key=f"{namespace}/{row.audit_id}/{row.receiver}",
        namespace=namespace,
        receiver=row.receiver,
        event=event_of(entry) or "metadata_expires",
        at=entry.at,
        because=entry.because,
        actor=entry.actor,
        role=str(entry.evidence.get("role", "")),
        evidence=entry.evidence,
    )


def _of_experiment(namespace: str, row: AlertDelivery, entry: AuditRecord, *, stores: Stores) -> Alert:
    record = stores.experiments.one(row.rollout)
    versions = {v.serial: v.semantic_version for v in stores.registry.versions(record.model)}
    arm = str(entry.evidence.get("arm") or "")
    return Alert(
        key=f"{namespace}/{row.audit_id}/{row.receiver}",
        namespace=namespace,
        receiver=row.receiver,
        event=event_of(entry) or "arm_stopped",
        at=entry.at,
        because=entry.because,
        actor=entry.actor,
        experiment=record.id,
        arm=arm,
        model=record.model,
        baseline=versions.get(record.serials[record.plan.control_id], ""),
        target=versions.get(record.serials.get(arm, 0), ""),
        evidence=entry.evidence,
    )


def _of_monitor(namespace: str, row: AlertDelivery, entry: AuditRecord) -> Alert:
    return Alert(
        key=f"{namespace}/{row.audit_id}/{row.receiver}",
        namespace=namespace,
        receiver=row.receiver,
        event=event_of(entry) or "anomaly",
        at=entry.at,
        because=entry.because,
        actor=entry.actor,
        monitor=str(entry.evidence.get("monitor", "monitor")),
        model=row.model,
        target=str(entry.evidence.get("version", "")),
        evidence=entry.evidence,
    )


def _smtp(host: str, port: int, *, secure: bool) -> smtplib.SMTP:
    if secure:
        return smtplib.SMTP_SSL(host, port, timeout=limits.ALERT_SEND_S, context=ssl.create_default_context())
    return smtplib.SMTP(host, port, timeout=limits.ALERT_SEND_S)


async def _read(answer: httpx.Response, *, now: float) -> DeliveryResult:
    content = b""
    async for chunk in answer.aiter_raw():
        content += chunk
        if len(content) >= limits.ALERT_ANSWER_BYTES:
            break
    text = " ".join(content[: limits.ALERT_ANSWER_BYTES].decode("utf-8", "replace").split())
    status_and_text = f"{answer.status_code} {text}".strip()
    if answer.is_success:
        return DeliveryResult(ok=True, said=status_and_text)
    if answer.is_redirect:
        because = f"{answer.status_code}: redirects are not followed; put the new address into whimbrel.toml"
        return DeliveryResult(ok=False, said=because, final=True)
    return DeliveryResult(
        ok=False, said=status_and_text, wait_s=_wait_s(answer, now=now), final=answer.status_code in _FINAL
    )


def _wait_s(answer: httpx.Response, *, now: float) -> float | None:
    asked = answer.headers.get("retry-after", "")
    return seconds_of(asked, now=now, most_s=limits.ALERT_WAIT_MOST_S)
