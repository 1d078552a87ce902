"""May this id enrol, and as what? A new one by a token; an enrolled one only with its own key, or by a person's word.

1. A blocked id may not enrol. One that was removed may, and is a new device from then on.
2. A new id needs an enrolment token that is not over, not used up and not faster than its rate, or a certificate that a
   trusted proxy has verified. It gets the labels that the token gives, and tells none that it may not claim.
3. An enrolled id enrols again with its key, and needs no token then. Without a key it proves its credential, and may
   adopt a key by that: then the credential stays. The certificate of a trusted proxy does the same.
4. Else a person must have allowed it (`allow_again`), and it takes a token, or the key that the person named. The
   shared token alone never moves an id.
5. A challenge that the device answered once is not taken again: an enrolment that was overheard enrols nobody.
6. A device that takes a cohort key gets one, drawn by the server, and keeps it for its life: its bucket never changes.
7. A new credential begins a new epoch: tokens of the former ones are over (`server/device_access`).
"""

import hmac

import msgspec

from whimbrel.errors import NotAllowed, Refused, TooMany
from whimbrel.flows.audit import audit
from whimbrel.flows.device_records import FollowedModels
from whimbrel.flows.devices.ports import AccessPort, EnrolmentPort, FollowedPort
from whimbrel.flows.devices.records import EnrolledDevice, EnrolTokenTerms
from whimbrel.flows.devices.told_labels import check_told_labels
from whimbrel.flows.ports import AuditPort
from whimbrel.model.documents import digest_of

_MINUTE_S = 60


class EnrolmentRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What a device asks and has proved.

    `secret`: its enrolment token. `credential`: the one that it has. `public_key`: of a key whose possession it proved,
    by an answer to the challenge of `challenged_at`. `takes_cohort_key`: it decides by a key that the server draws.
    `certified`: a trusted proxy verified a certificate of this id.
    `attested`: the labels of an attestation that was verified; None where it brought none. `recipient`: the key that
    release keys are sealed to for it, signed with `public_key`; None where it named none.
    """

    device_id: str
    labels: dict[str, str] = {}
    models: tuple[str, ...] = ()
    secret: str | None = None
    credential: str | None = None
    public_key: str | None = None
    challenged_at: float = 0.0
    certified: bool = False
    attested: dict[str, str] | None = None
    takes_cohort_key: bool = False
    recipient: str | None = None


def enrol_device(
    enrolments: EnrolmentPort,
    access: AccessPort,
    fleet: FollowedPort,
    registry: AuditPort,
    asked: EnrolmentRequest,
    *,
    credential: str,
    cohort_key: str | None = None,
    now: float,
) -> EnrolledDevice:
    """Enrol a device, and write what is kept of it. `credential`: the one that it gets. `cohort_key`: the one that was
    drawn for it, which it gets where it has none.

    Raises `Refused`, `NotAllowed` where it has nothing that lets it in, or `TooMany`.
    """
    admit_enrolment(access, asked.device_id, now=now)
    known = enrolments.known(asked.device_id, lock=True)
    if known is None:
        device = _new(enrolments, asked, now=now)
    elif _proves_itself(known, asked):
        device = _again(known, asked)
    else:
        device = _allowed_again(enrolments, known, asked, now=now)
        because = "with a new key" if asked.public_key else "without a key"
        audit(registry, device=asked.device_id, actor=asked.device_id, action="enrol_again", because=because, now=now)
    if asked.attested is not None:
        granted = device.granted_labels | asked.attested
        device = msgspec.structs.replace(device, admission="attested", granted_labels=granted)
    check_told_labels(asked.labels, granted=device.granted_labels, claimable=device.claimable_labels)
    if known is not None and adopts_key(known, asked):
        device = msgspec.structs.replace(
            device, credential_sha256=known.credential_sha256, credential_at=known.credential_at, epoch=known.epoch
        )
    else:
        device = msgspec.structs.replace(device, credential_sha256=digest_of(credential.encode()), credential_at=now)
    if device.cohort_key is None and asked.takes_cohort_key:
        device = msgspec.structs.replace(device, cohort_key=cohort_key)
    if asked.recipient is not None:
        device = msgspec.structs.replace(device, recipient=asked.recipient)
    enrolments.save(device, labels=asked.labels, at=now)
    if asked.models:
        fleet.note_followed(FollowedModels(device_id=asked.device_id, models=asked.models, at=now))
    return device


def adopts_key(known: EnrolledDevice, asked: EnrolmentRequest) -> bool:
    """Whether a device that has no key yet brings one, and proves its credential."""
    return known.public_key is None and asked.public_key is not None and _has_credential(known, asked)


def check_credential(known: EnrolledDevice | None, credential: str) -> EnrolledDevice:
    """The device, where this is its credential.

    Raises `NotAllowed`, with the same message for an unknown device and for a wrong credential.
    """
    given = digest_of(credential.encode())
    if known is None or not hmac.compare_digest(known.credential_sha256, given):
        raise NotAllowed("this device is not enrolled with this credential; enrol it (again)")
    return known


def admit_enrolment(devices: AccessPort, device_id: str, *, now: float) -> None:
    """Raise `Refused` for an id that is blocked; note that a removed one is back."""
    access = devices.access([device_id]).get(device_id)
    if access is None or access.state == "open":
        return
    if access.state == "blocked":
        raise Refused(f"{device_id} is blocked by the operator, and may not enrol until it is unblocked")
    back = msgspec.structs.replace(access, state="open", since=now, because="it enrolled again", actor=device_id)
    devices.set_access(back)


def _new(enrolments: EnrolmentPort, asked: EnrolmentRequest, *, now: float) -> EnrolledDevice:
    terms = EnrolTokenTerms()
    name = ""
    if asked.secret is not None or not asked.certified:
        name, terms = _take_token(enrolments, asked, now=now)
    return EnrolledDevice(
        device_id=asked.device_id,
        credential_sha256="",
        admission="attested" if asked.certified else terms.admission,
        enrolled_at=now,
        admitted_at=now,
        enrol_token_name=name,
        public_key=asked.public_key,
        challenged_at=asked.challenged_at,
        granted_labels=dict(terms.granted_labels),
        claimable_labels=dict(terms.labels),
    )


def _proves_itself(known: EnrolledDevice, asked: EnrolmentRequest) -> bool:
    if asked.public_key is not None and asked.challenged_at <= known.challenged_at:
        raise NotAllowed("this challenge was answered before; get a new one with POST challenge")
    if known.public_key is not None and asked.public_key == known.public_key:
        return True
    return asked.certified or (known.public_key is None and _has_credential(known, asked))


def _has_credential(known: EnrolledDevice, asked: EnrolmentRequest) -> bool:
    given = digest_of((asked.credential or "").encode())
    return asked.credential is not None and hmac.compare_digest(given, known.credential_sha256)


def _again(known: EnrolledDevice, asked: EnrolmentRequest) -> EnrolledDevice:
    return msgspec.structs.replace(
        known,
        public_key=asked.public_key or known.public_key,
        challenged_at=asked.challenged_at or known.challenged_at,
        epoch=known.epoch + 1,
        allowed_again_until=None,
        allowed_again_key=None,
    )


def _allowed_again(
    enrolments: EnrolmentPort, known: EnrolledDevice, asked: EnrolmentRequest, *, now: float
) -> EnrolledDevice:
    allowed = known.allowed_again_until is not None and now <= known.allowed_again_until
    if not allowed or known.allowed_again_key not in {None, asked.public_key}:
        what = "with another key" if known.public_key is not None else "without a key, and this is not its credential"
        raise Refused(
            f"{known.device_id} is enrolled already, {what}: an enrolment token does not take over an id. Where its "
            f"disk was wiped, an operator says so: whimbrel device allow-again {known.device_id}"
        )
    name, terms = known.enrol_token_name, EnrolTokenTerms(labels=known.claimable_labels)
    if asked.secret is not None or known.allowed_again_key is None:  # the key that a person named needs no token
        name, terms = _take_token(enrolments, asked, now=now)
    return msgspec.structs.replace(
        _again(known, asked),
        public_key=asked.public_key,
        recipient=None,  # of the device that had the id before
        admission="person",
        admitted_at=now,
        enrol_token_name=name,
        granted_labels=dict(terms.granted_labels),
        claimable_labels=dict(terms.labels),
    )


def _take_token(enrolments: EnrolmentPort, asked: EnrolmentRequest, *, now: float) -> tuple[str, EnrolTokenTerms]:
    """Use an enrolment token once. Raises `NotAllowed`, `Refused` or `TooMany`."""
    if asked.secret is None:
        raise NotAllowed("this device is to be let in, and brings no enrolment token; give it one")
    token = enrolments.token(asked.secret)
    if token is None:
        raise NotAllowed("this enrolment token is unknown here; ask the operator for a current one")
    terms, minute = token.terms, int(now // _MINUTE_S)
    if token.revoked_at is not None:
        raise NotAllowed(f"the enrolment token {token.name!r} was revoked; ask the operator for a current one")
    if terms.expires_at is not None and now >= terms.expires_at:
        raise NotAllowed(f"the enrolment token {token.name!r} is over; ask the operator for a current one")
    if terms.requires_key and asked.public_key is None:
        raise Refused(f"the enrolment token {token.name!r} lets in devices that prove a key; this one brought none")
    uses = token.minute_uses + 1 if token.minute == minute else 1
    if uses > terms.rate_per_min:
        raise TooMany(
            f"the enrolment token {token.name!r} lets in {terms.rate_per_min} new devices a minute, and these came; "
            "try again later"
        )
    if not enrolments.use_token(asked.secret, uses_max=terms.uses_max, minute=minute, minute_uses=uses):
        raise NotAllowed(
            f"this enrolment token {token.name!r} let in {terms.uses_max} "
            f"{'device' if terms.uses_max == 1 else 'devices'}, which is all; ask the operator for another"
        )
    return token.name, terms


def audit_enrolment(registry: AuditPort, device: EnrolledDevice, *, now: float) -> None:
    """Note that a device enrolled, or enrolled again."""
    name = device.enrol_token_name
    how = f"with the enrolment token {name!r}" if name else "by its certificate"
    returns = device.epoch > 1 or device.enrolled_at < now  # one that brings its first key stays in its epoch
    if returns and device.admission != "person":
        how = "again, by its own key, credential or certificate"
    audit(
        registry,
        device=device.device_id,
        actor=device.device_id,
        action="enrol_device",
        because=how,
        now=now,
        evidence={"token": name, "admission": device.admission},
    )
