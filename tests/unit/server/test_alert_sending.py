"""Every alert that is due is sent, at least once, and a receiver that is slow, down or wrong delays nobody."""

import asyncio
import functools
import hashlib
import hmac
import json
import smtplib
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from email.message import EmailMessage
from typing import Any

import httpx
import pytest

from support.experiments import written
from support.rollouts_in_memory import start
from support.server_in_memory import ServerInMemory, server_in_memory
from support.values import HOUR, plan
from whimbrel import limits
from whimbrel.errors import NotFound, UntrustedInput
from whimbrel.flows.audit import audit
from whimbrel.flows.experiments.start import start_experiment
from whimbrel.plan.governance import AlertRule
from whimbrel.server import alerts as sending
from whimbrel.server.alerts import DeliveryResult
from whimbrel.server.receivers import Receiver
from whimbrel.stores.alerts import AlertDelivery

TEAM = Receiver(name="team", form="generic", url="https://hooks.example.com/x", on=("held", "started"))
OPS = Receiver(name="ops", form="slack", url="https://hooks.example.com/ops", on=("held",))
Answers = Callable[[httpx.Request], httpx.Response]


class Pieces(httpx.AsyncByteStream):
    """An answer that comes in pieces of seven bytes. `pieces`: how many were taken."""

    def __init__(self, content: bytes) -> None:
        self.content, self.pieces = content, 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for at in range(0, len(self.content), 7):
            self.pieces += 1
            yield self.content[at : at + 7]


class Hooks:
    """The other side of all HTTP: what came, and what is answered."""

    def __init__(self) -> None:
        self.came: list[httpx.Request] = []
        self.answer: Answers = lambda _: httpx.Response(200, text="ok")

    def handle(self, request: httpx.Request) -> httpx.Response:
        self.came.append(request)
        answer = self.answer(request)
        self.sent = Pieces(answer.content)
        return httpx.Response(answer.status_code, headers=answer.headers, stream=self.sent)

    @property
    def bodies(self) -> list[Any]:
        return [json.loads(each.content) for each in self.came]


@pytest.fixture
def hooks(monkeypatch: pytest.MonkeyPatch) -> Hooks:
    made = Hooks()
    client = functools.partial(httpx.AsyncClient, transport=httpx.MockTransport(made.handle))
    monkeypatch.setattr(sending.httpx, "AsyncClient", client)
    return made


@contextmanager
def with_receivers(*receivers: Receiver) -> Iterator[ServerInMemory]:
    """A server whose receivers are known from now on, and whose waits are the longest ones."""
    with server_in_memory(receivers=receivers) as server:
        server.alerts.introduce()
        server.alerts._chance.uniform = lambda least, most: most - least
        yield server


def happens(server: ServerInMemory, action: str, **about: Any) -> None:
    """Something is written into the audit log."""
    fields: dict[str, Any] = {"actor": "gate", "because": "it looks bad", "now": server.clock.now} | about
    with server.stores() as stores:
        rollout = fields.pop("of", None)
        subject = [] if rollout is None else [stores.registry.rollout(rollout)]
        audit(stores.registry, *subject, action=action, **fields)


def send(server: ServerInMemory) -> int:
    """One round of alerts: how many were tried."""
    tried: int = server.run(server.alerts.round())
    return tried


def rows(server: ServerInMemory) -> list[AlertDelivery]:
    """What became of each alert, the oldest first."""
    with server.stores() as stores:
        return list(reversed(stores.alerts.newest(limit=100)))


def states(server: ServerInMemory) -> list[tuple[str, str]]:
    return [(each.receiver, each.state) for each in rows(server)]


# --- what is told, to whom ---


def test_a_receiver_is_told_what_it_asks_for_once(hooks: Hooks) -> None:
    with with_receivers(TEAM) as server:
        rollout = start(server)
        happens(server, "hold", of=rollout)
        happens(server, "advance", of=rollout)
        assert send(server) == 2
        assert send(server) == 0
        started, held = hooks.bodies
        assert (started["moment"], held["moment"]) == ("started", "held")
        assert held["because"] == "it looks bad"
        assert (held["model"], held["rollout"], held["stage_name"]) == ("wake", rollout, "canary")
        assert (held["baseline"], held["target"]) == ("1.0.0", "2.0.0")
        assert held["key"] == hooks.came[1].headers["idempotency-key"] == f"default/{rows(server)[1].audit_id}/team"
        assert str(hooks.came[1].url) == TEAM.url
        row = rows(server)[1]
        assert (row.state, row.tries, row.said, row.event, row.rollout) == ("sent", 1, "200 ok", "held", rollout)


def test_a_plan_names_a_receiver_besides(hooks: Hooks) -> None:
    asked = (AlertRule(to="ops", on=("started",)),)
    with with_receivers(OPS) as server:
        assert plan(alerts=asked).alerts == asked
        start(server, alerts=asked)
        send(server)
        assert states(server) == [("ops", "sent")]


def test_what_happened_before_a_receiver_was_known_is_not_told_to_it(hooks: Hooks) -> None:
    with server_in_memory(receivers=(TEAM,)) as server:
        rollout = start(server)
        server.clock.now += 1
        server.alerts.introduce()
        happens(server, "hold", of=rollout)
        send(server)
        assert [each["moment"] for each in hooks.bodies] == ["held"]


def test_a_receiver_that_nobody_introduced_gets_nothing(hooks: Hooks) -> None:
    with server_in_memory(receivers=(TEAM,)) as server:
        start(server)
        server.clock.now += 1
        assert send(server) == 0
        assert rows(server) == []


@pytest.mark.parametrize(("later_s", "state"), [(3599.0, "grouped"), (3600.0, "sent")])
def test_the_same_of_the_same_stage_is_news_again_after_an_hour(hooks: Hooks, later_s: float, state: str) -> None:
    with with_receivers(TEAM) as server:
        rollout = start(server)
        happens(server, "hold", of=rollout)
        server.clock.now += later_s
        happens(server, "hold", of=rollout)
        send(server)
        assert [each.state for each in rows(server)] == ["sent", "sent", state]
        if state == "grouped":
            assert rows(server)[2].said == "the same was told a short time ago"


@pytest.mark.parametrize(
    ("event", "action", "about", "expected"),
    [
        (
            "duplicate_identity",
            "notice_duplicate",
            {"device": "dev-1", "actor": "tally"},
            {"device": "dev-1", "title": "device dev-1: two installations report with this id"},
        ),
        (
            "objective_broken",
            "break_objective",
            {"model": "wake", "evidence": {"monitor": "error_rate", "version": "2.0.0"}},
            {"model": "wake", "version": "2.0.0", "monitor": "error_rate"},
        ),
        (
            "metadata_expires",
            "notice_expiry",
            {"evidence": {"role": "root", "left_s": 60.0}},
            {"role": "root", "severity": "critical", "title": "the signed role root expires"},
        ),
        (
            "keys_proposed",
            "propose keys",
            {"evidence": {"changes": ["one"]}},
            {"title": "a change of keys of default waits for a second person", "status": "firing"},
        ),
    ],
)
def test_what_is_about_no_rollout_says_what_it_is_about(
    hooks: Hooks, event: str, action: str, about: dict[str, Any], expected: dict[str, Any]
) -> None:
    asking = Receiver(name="team", form="generic", url=TEAM.url, on=(event,))
    with with_receivers(asking) as server:
        happens(server, action, **about)
        send(server)
        (body,) = hooks.bodies
        assert body | expected == body
        assert (body["moment"], body["because"], "rollout" in body) == (event, "it looks bad", False)
        assert body["evidence"] == about.get("evidence", {})


def test_what_happens_to_an_experiment_names_its_versions(hooks: Hooks) -> None:
    asking = Receiver(name="team", form="generic", url=TEAM.url, on=("experiment_started", "arm_stopped"))
    with with_receivers(asking) as server:
        with server.stores() as stores:
            record = start_experiment(
                stores.registry,
                stores.experiments,
                written(),
                plan_text="",
                tag="t",
                salt=7,
                hour_s=HOUR,
                actor="ana",
                now=server.clock.now,
            )
            audit(
                stores.registry,
                record,
                action="experiment stop arm",
                because="it is worse",
                actor="gate",
                now=server.clock.now,
                evidence={"arm": "large"},
            )
        send(server)
        started, stopped = hooks.bodies
        for body, arm, target in ((started, "", ""), (stopped, "large", "2.0.0")):
            assert (body["model"], body["experiment"], body["arm"]) == ("wake", record.id, arm)
            assert (body["baseline"], body["target"]) == ("1.0.0", target)


# --- what becomes of a delivery ---


def after_answer(hooks: Hooks, answer: httpx.Response, *, at_s: float = 0.0) -> tuple[AlertDelivery, float]:
    """What became of an alert, sent `at_s` after it happened and answered so, and the wait until the next try."""
    with with_receivers(TEAM) as server:
        start(server)
        server.clock.now += at_s
        hooks.answer = lambda _: answer
        send(server)
        (row,) = rows(server)
        return row, row.next_at - server.clock.now


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 413, 415, 422])
def test_what_will_never_be_accepted_is_given_up_at_once(hooks: Hooks, status: int) -> None:
    row, _ = after_answer(hooks, httpx.Response(status, text=" no \n such\thook "))
    assert (row.state, row.tries, row.said) == ("given_up", 1, f"{status} no such hook")


@pytest.mark.parametrize("status", [402, 405, 408, 409, 412, 414, 418, 429, 500, 502, 503])
def test_what_may_be_accepted_later_is_tried_again(hooks: Hooks, status: int) -> None:
    row, wait_s = after_answer(hooks, httpx.Response(status))
    assert (row.state, row.tries, row.said, wait_s) == ("waiting", 1, str(status), limits.ALERT_RETRY_S)


def test_the_wait_doubles_from_try_to_try_up_to_a_bound(hooks: Hooks) -> None:
    waits = []
    with with_receivers(TEAM) as server:
        hooks.answer = lambda _: httpx.Response(503)
        start(server)
        for _ in range(11):
            assert send(server) == 1
            waits.append(rows(server)[0].next_at - server.clock.now)
            server.clock.now = rows(server)[0].next_at - 0.5
            assert send(server) == 0
            server.clock.now += 0.5
        assert rows(server)[0].tries == 11
    assert waits == [2, 4, 8, 16, 32, 64, 128, 256, 512, 900, 900]


@pytest.mark.parametrize(("asked", "wait_s"), [("7", 7.0), ("0", 0.0), ("999999", 3600.0), ("soon", 2.0)])
def test_a_receiver_may_say_when_to_come_again(hooks: Hooks, asked: str, wait_s: float) -> None:
    assert after_answer(hooks, httpx.Response(503, headers={"retry-after": asked}))[1] == wait_s


@pytest.mark.parametrize(("at_s", "state"), [(86400.0, "waiting"), (86400.5, "given_up")])
def test_after_a_day_an_alert_is_given_up(hooks: Hooks, at_s: float, state: str) -> None:
    assert after_answer(hooks, httpx.Response(503), at_s=at_s)[0].state == state


def test_a_redirect_is_not_followed(hooks: Hooks) -> None:
    row, _ = after_answer(hooks, httpx.Response(302, headers={"location": "http://127.0.0.1/admin"}))
    assert row.state == "given_up"
    assert row.said == "302: redirects are not followed; put the new address into whimbrel.toml"
    assert len(hooks.came) == 1


def test_a_receiver_that_is_down_says_so_and_delays_no_other(hooks: Hooks, caplog: pytest.LogCaptureFixture) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/x":
            raise httpx.ConnectError("nothing listens there")
        return httpx.Response(200)

    hooks.answer = answer
    with with_receivers(TEAM, OPS) as server:
        rollout = start(server)
        happens(server, "hold", of=rollout)
        assert send(server) == 3
        assert sorted(states(server)) == [("ops", "sent"), ("team", "waiting"), ("team", "waiting")]
        assert rows(server)[0].said == "ConnectError: nothing listens there"
    assert caplog.records[0].getMessage() == (
        f"alert started of {rollout} was not told to team (try 1, again in 2 s): ConnectError: nothing listens there"
    )


def test_a_receiver_that_hangs_is_waited_for_so_long_and_no_longer(
    hooks: Hooks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "ALERT_SEND_S", 0.01)

    async def hang(*_: object) -> DeliveryResult:
        await asyncio.sleep(60)
        raise AssertionError

    with with_receivers(TEAM) as server:
        monkeypatch.setattr(server.alerts, "_post", hang)
        start(server)
        send(server)
        assert (rows(server)[0].state, rows(server)[0].said) == ("waiting", "no answer within 0 s")


def test_so_many_deliveries_are_under_way_at_once(hooks: Hooks, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "ALERTS_AT_ONCE", 2)
    at_once, most = 0, 0

    async def slow(*_: object) -> DeliveryResult:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        for _turn in range(5):
            await asyncio.sleep(0)
        at_once -= 1
        return DeliveryResult(ok=True, said="ok")

    with with_receivers(TEAM) as server:
        monkeypatch.setattr(server.alerts, "_post", slow)
        for number in range(5):
            happens(server, "hold", of=start(server)) if number == 0 else happens(
                server, "notice_expiry", evidence={"role": "root"}
            )
        assert send(server) == 2
        assert most == 2


def test_of_an_answer_a_few_kibibytes_are_read_and_less_is_kept(hooks: Hooks, monkeypatch: pytest.MonkeyPatch) -> None:
    row, _ = after_answer(hooks, httpx.Response(200, text="x" * 5000))
    assert row.said == "200 " + "x" * 496
    monkeypatch.setattr(limits, "ALERT_ANSWER_BYTES", 10)
    assert after_answer(hooks, httpx.Response(200, text="y" * 50))[0].said == "200 " + "y" * 10
    assert hooks.sent.pieces == 2


def test_what_a_process_did_not_write_down_is_sent_once_more_with_the_same_key(
    hooks: Hooks, monkeypatch: pytest.MonkeyPatch
) -> None:
    with with_receivers(TEAM) as server:
        start(server)
        with monkeypatch.context() as patched:
            patched.setattr(server.alerts, "_save", lambda *_: None)  # killed between sending and writing
            send(server)
        send(server)
        first, second = (each.headers["idempotency-key"] for each in hooks.came)
        assert first == second
        assert states(server) == [("team", "sent")]


# --- secrets ---


def test_a_secret_signs_what_is_sent_and_stands_in_no_row(hooks: Hooks, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOOK_KEY", "s3cret")
    hooks.answer = lambda _: httpx.Response(503, text="s3cret is wrong")
    keyed = Receiver(name="team", form="generic", url=TEAM.url, secret_from="env:HOOK_KEY", on=("started",))
    with with_receivers(keyed) as server:
        start(server)
        send(server)
        assert rows(server)[0].said == "503 *** is wrong"
        (request,) = hooks.came
        at, _, given = request.headers["whimbrel-signature"].partition(",v1=")
        assert at == f"t={server.clock.now:.0f}"
        signed = f"{server.clock.now:.0f}".encode() + b"." + request.content
        assert given == hmac.new(b"s3cret", signed, hashlib.sha256).hexdigest()


def test_a_secret_that_is_not_there_is_told_and_looked_for_again(hooks: Hooks, monkeypatch: pytest.MonkeyPatch) -> None:
    keyed = Receiver(name="team", form="generic", url=TEAM.url, secret_from="env:HOOK_KEY", on=("started",))
    monkeypatch.delenv("HOOK_KEY", raising=False)
    with with_receivers(keyed) as server:
        start(server)
        send(server)
        (row,) = rows(server)
        assert (row.state, row.said.startswith("the secret of receiver team is expected in env:HOOK_KEY")) == (
            "waiting",
            True,
        )
        monkeypatch.setenv("HOOK_KEY", "s3cret")
        server.clock.now = row.next_at
        send(server)
        assert states(server) == [("team", "sent")]


# --- a test alert ---


def test_a_person_can_send_a_receiver_a_test_that_says_that_it_is_one(hooks: Hooks) -> None:
    with with_receivers(TEAM, OPS) as server:
        result = server.run(server.alerts.test("default", "team", actor="ana"))
        assert result == DeliveryResult(ok=True, said="200 ok")
        (body,) = hooks.bodies
        assert (body["test"], body["actor"], body["because"]) == (
            True,
            "ana",
            "this is a test: nothing happened to any rollout",
        )
        assert body["title"] == "TEST: test 1.1.0: the rollout holds (stage test)"
        assert rows(server) == []
        with pytest.raises(NotFound, match=r"there is no receiver 'nobody'; whimbrel\.toml has: ops, team"):
            server.run(server.alerts.test("default", "nobody", actor="ana"))


def test_a_file_of_receivers_that_is_not_understood_is_told_who_asks(hooks: Hooks) -> None:
    with with_receivers(TEAM) as server:
        (server.folder.path / "whimbrel.toml").write_text("[[receivers]\n")
        with pytest.raises(UntrustedInput, match="the receivers of before stay in use: team"):
            server.run(server.alerts.test("default", "team", actor="ana"))


# --- the loop ---


@pytest.mark.parametrize("leads", [True, False])
def test_alerts_are_sent_by_the_leader_alone(hooks: Hooks, monkeypatch: pytest.MonkeyPatch, leads: bool) -> None:
    monkeypatch.setattr(sending, "_PERIOD_S", 0.0)
    with server_in_memory(receivers=(TEAM,)) as server:
        if leads:
            server.controllers.leader.take()
        looks = 0

        async def play() -> None:
            nonlocal looks
            task = asyncio.create_task(server.alerts.run())
            for turn in range(200):
                await asyncio.sleep(0)
                if turn == 100:
                    start(server)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

        server.run(play())
        assert [each.state for each in rows(server)] == (["sent"] if leads else [])


def test_trouble_of_a_round_is_logged_and_alerts_go_on(
    hooks: Hooks, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sending, "_PERIOD_S", 0.0)
    with server_in_memory(receivers=(TEAM,)) as server:
        server.controllers.leader.take()
        errors: list[Exception] = [UntrustedInput("a row is broken"), ZeroDivisionError()]
        play_round, rounds = server.alerts.round, 0

        async def sick() -> int:
            nonlocal rounds
            rounds += 1
            if errors:
                raise errors.pop(0)
            return await play_round()

        monkeypatch.setattr(server.alerts, "round", sick)

        async def play() -> None:
            task = asyncio.create_task(server.alerts.run())
            while rounds < 4:
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

        server.run(play())
    assert [each.getMessage() for each in caplog.records] == [
        "alerts could not be looked at: a row is broken",
        "alerts could not be looked at",
    ]


# --- e-mail ---


class Post:
    """A mail server: what it was asked for, and what it says."""

    def __init__(self) -> None:
        self.asked: list[tuple[Any, ...]] = []
        self.mails: list[EmailMessage] = []
        self.refuses: dict[str, tuple[int, bytes]] = {}
        self.fails: Exception | None = None

    def connect(self, host: str, port: int, **more: Any) -> "Post":
        assert more["timeout"] == limits.ALERT_SEND_S
        self.asked.append(("tls" if "context" in more else "plain", host, port))
        return self

    def __enter__(self) -> "Post":
        return self

    def __exit__(self, *_: object) -> None:
        self.asked.append(("closed",))

    def starttls(self, *, context: object) -> None:
        self.asked.append(("starttls",))

    def login(self, user: str, password: str) -> None:
        self.asked.append(("login", user, password))

    def send_message(self, message: EmailMessage) -> dict[str, tuple[int, bytes]]:
        if self.fails is not None:
            raise self.fails
        self.mails.append(message)
        return self.refuses


@pytest.fixture
def post(monkeypatch: pytest.MonkeyPatch) -> Post:
    made = Post()
    monkeypatch.setattr(sending.smtplib, "SMTP", made.connect)
    monkeypatch.setattr(sending.smtplib, "SMTP_SSL", made.connect)
    return made


def mailed(url: str, **more: Any) -> DeliveryResult:
    receiver = Receiver(name="m", form="email", url=url, sender="w@b.c", to=("d@e.f", "g@h.i"), **more)
    with server_in_memory(versions=0, receivers=(receiver,)) as server:
        result: DeliveryResult = server.run(server.alerts.test("default", "m", actor="ana"))
    return result


@pytest.mark.parametrize(
    ("url", "asked"),
    [
        ("smtp://mx.example.com", [("plain", "mx.example.com", 25)]),
        ("smtp://mx.example.com:2525", [("plain", "mx.example.com", 2525)]),
        ("smtps://mx.example.com", [("tls", "mx.example.com", 465)]),
        ("smtp+starttls://mx.example.com", [("plain", "mx.example.com", 587), ("starttls",)]),
    ],
)
def test_a_mail_goes_to_the_server_in_the_way_that_its_address_says(
    post: Post, url: str, asked: list[tuple[Any, ...]]
) -> None:
    assert mailed(url) == DeliveryResult(ok=True, said="accepted for 2 of 2 mailboxes")
    assert post.asked == [*asked, ("closed",)]
    (message,) = post.mails
    assert (message["From"], message["To"]) == ("Whimbrel <w@b.c>", "d@e.f, g@h.i")


def test_a_user_signs_in_before_a_mail_is_sent(post: Post, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAIL_KEY", "s3cret")
    mailed("smtp://mx.example.com", user="ana", secret_from="env:MAIL_KEY")
    assert post.asked[1] == ("login", "ana", "s3cret")


def test_mailboxes_that_a_server_refuses_are_counted(post: Post) -> None:
    post.refuses = {"d@e.f": (550, b"no")}
    assert mailed("smtp://mx.example.com").said == "accepted for 1 of 2 mailboxes"


@pytest.mark.parametrize(
    ("error", "said", "final"),
    [
        (smtplib.SMTPDataError(549, b"later"), "549 later", False),
        (smtplib.SMTPDataError(550, b"never"), "550 never", True),
        (smtplib.SMTPServerDisconnected("gone"), "SMTPServerDisconnected: gone", False),
        (ConnectionRefusedError("nothing listens"), "ConnectionRefusedError: nothing listens", False),
    ],
)
def test_what_a_mail_server_says_is_told(post: Post, error: Exception, said: str, final: bool) -> None:
    post.fails = error
    assert mailed("smtp://mx.example.com") == DeliveryResult(ok=False, said=said, final=final)
