"""POST release-key: an entitled device gets the key of a sealed release, sealed to itself.

1. The token says who asks, the signature that the request and its recipient key are that device's own.
2. A device gets only so many in an hour, whatever it asks for; the count is in memory, and bounded. Who has its token
   without its key is counted apart, and cannot use the device's share up.
3. Some a minute are in the audit log with an entry of their own, and the others are counted there (`bounded_acts`).
4. The key is open in this process for the time of one answer, and is written nowhere.
"""

import logging
from collections import OrderedDict
from collections.abc import Callable

from whimbrel import limits
from whimbrel.errors import TooMany, Unavailable, WhimbrelError
from whimbrel.flows.audit import audit
from whimbrel.flows.devices.release_key import check_entitled
from whimbrel.model.documents import encode, parse
from whimbrel.server.bounded_acts import HAND_OUT_RELEASE_KEY, BoundedActs
from whimbrel.server.challenges import Challenges
from whimbrel.server.questions import Questions
from whimbrel.stores.database import Database
from whimbrel.stores.sealing_key import SealingKey
from whimbrel.stores.transaction import transaction
from whimbrel.trust.possession import check_proof
from whimbrel.trust.sealing import ReleaseKeyRequest, SealedReleaseKey, release_key_text, seal_key

log = logging.getLogger(__name__)

_HOUR_S = 3600.0


class ReleaseKeys:
    """Hands release keys out, in one process."""

    def __init__(
        self,
        database: Database,
        sealing_key: SealingKey,
        challenges: Challenges,
        *,
        questions: Questions,
        acts: BoundedActs,
        clock: Callable[[], float],
    ) -> None:
        self._database, self._sealing_key, self._challenges = database, sealing_key, challenges
        self._questions, self._acts, self._clock = questions, acts, clock
        self._logged_at = float("-inf")
        self._asked: OrderedDict[tuple[str, str, str], tuple[float, int]] = OrderedDict()  # its hour's begin, how many

    async def answer(self, body: bytes, *, namespace: str, device_id: str) -> bytes:
        """The key that a device asks for. Raises `NotAllowed`, `Refused`, `NotFound`, `TooMany`."""
        asked = parse(ReleaseKeyRequest, body, what="a request for a release key")
        now = self._clock()
        proof = asked.proof
        self._challenges.made_at(proof.challenge, namespace=namespace, now=now)
        text = release_key_text(
            challenge=proof.challenge,
            device_id=device_id,
            public_key=proof.public_key,
            model=asked.model,
            serial=asked.serial,
            recipient=asked.recipient,
        )
        check_proof(proof, text)
        self._count(namespace, device_id, proof.public_key, now=now)
        return await self._questions.ask(lambda: self._hand_out(asked, namespace, device_id, now=now))

    def _hand_out(self, asked: ReleaseKeyRequest, namespace: str, device_id: str, *, now: float) -> bytes:
        with transaction(self._database, namespace) as stores:
            device = stores.enrolments.known(device_id)
            check_entitled(
                device,
                public_key=asked.proof.public_key,
                operator_labels=stores.inventory.device(device_id).operator_labels if device is not None else {},
                settings=stores.registry.model(asked.model).settings,
            )
            kept = stores.sealed.release_key(asked.model, asked.serial)
            identity = self._opened(kept, namespace, asked)
            sealed = seal_key(
                identity,
                asked.recipient,
                namespace=namespace,
                model=asked.model,
                serial=asked.serial,
                device_id=device_id,
            )
            if device is not None and device.recipient != asked.recipient:
                stores.enrolments.set_recipient(device_id, asked.recipient)
            if self._acts.own_entry(namespace, HAND_OUT_RELEASE_KEY):
                audit(
                    stores.registry,
                    model=asked.model,
                    device=device_id,
                    actor=device_id,
                    action=HAND_OUT_RELEASE_KEY,
                    because=f"the key of serial {asked.serial}, sealed to the device",
                    now=now,
                    evidence={"serial": asked.serial, "recipient": asked.recipient},
                )
            else:
                self._acts.count(namespace, HAND_OUT_RELEASE_KEY, by=asked.model)
        return encode(SealedReleaseKey(model=asked.model, serial=asked.serial, sealed=sealed))

    def _opened(self, kept: bytes, namespace: str, asked: ReleaseKeyRequest) -> str:
        """The release's key. What is wrong with the server's own keys is for its log, and not for devices."""
        try:
            return self._sealing_key.open(kept, namespace=namespace, model=asked.model, serial=asked.serial)
        except WhimbrelError as error:
            if self._clock() >= self._logged_at + limits.DAMPED_LOG_S:  # a fleet asks, and it is one trouble
                self._logged_at = self._clock()
                log.error("the key of %s at serial %d cannot be handed out: %s", asked.model, asked.serial, error)
            raise Unavailable(
                f"the server cannot open the key of {asked.model} at serial {asked.serial} now; its log says why"
            ) from error

    def _count(self, namespace: str, device_id: str, public_key: str, *, now: float) -> None:
        key = namespace, device_id, public_key
        began, count = self._asked.pop(key, (now, 0))
        if not 0 <= now - began < _HOUR_S:
            began, count = now, 0
        self._asked[key] = began, count + 1
        while len(self._asked) > limits.RELEASE_KEY_DEVICES:
            self._asked.popitem(last=False)
        if count >= limits.RELEASE_KEYS_AN_HOUR:
            raise TooMany(
                f"{device_id} asked for {count} release keys within an hour; a device gets at most "
                f"{limits.RELEASE_KEYS_AN_HOUR}: come again later"
            )
