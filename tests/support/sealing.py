"""A repository with a sealed model, and devices that are entitled to it, or not."""

import random
from pathlib import Path
from typing import Any

import httpx
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from support.agents import AllGood
from support.enrolling import KeyedDevice
from support.repository import onnx_model
from support.server import Running, done
from whimbrel import Agent, AgentOptions
from whimbrel.model.documents import digest_of, plain
from whimbrel.trust.possession import prove, recipient_text
from whimbrel.trust.sealing import recipient_key_of, release_key_text


def _model(serial: int) -> bytes:
    """A model with 40 kB that nobody can guess or compress, most of which all versions have."""
    import onnx

    model = onnx.load_from_string(onnx_model(factor=float(serial + 1)))
    model.doc_string = random.Random(7).randbytes(20_000).hex() + f"-{serial}"
    content: bytes = model.SerializeToString()
    return content


CONTENTS = {serial: _model(serial) for serial in (1, 2)}


def sealed_repository(folder: Path, *, versions: int = 1, sealed_for: str = "tier=pro") -> Path:
    """A repository with the sealed model `secret`."""
    done("init", folder)
    done("keys", "make-sealing-key", "-R", folder)
    done("model", "add", "secret", "--sealed", "--sealed-for", sealed_for, "-R", folder)
    for serial in range(1, versions + 1):
        publish(folder, serial)
    return folder


def lies_in_memory(model_folder: Path) -> set[str]:
    """The folders in memory into which the agent of this folder opened a version; those of others do not count."""
    own = f"whimbrel-open-{digest_of(bytes(model_folder.absolute()))[:16]}-"
    return {path.name for path in Path("/dev/shm").iterdir() if path.name.startswith(own)}


def publish(folder: Path, serial: int, *more: object) -> dict[str, Any]:
    """Publish a version of it; the answer of the command."""
    file = folder.parent / f"secret-{serial}.onnx"
    file.write_bytes(CONTENTS[serial])
    answer: dict[str, Any] = done("publish", "-m", "secret", file, *more, "-R", folder)
    return answer


def token_for(running: Running, name: str, *labels: str) -> str:
    """An enrolment token whose devices have `labels`, by the server's word."""
    given = [word for label in labels for word in ("--give", label)]
    answer: dict[str, Any] = done("enrol-token", "create", name, *given, "-R", running.folder)
    return str(answer["tokens"][0])


def options(running: Running, device: str, token: str | None, **more: Any) -> AgentOptions:
    usual = {"server": running.devices, "probes": AllGood()}
    return AgentOptions(
        root=running.folder / "root.json", models=["secret"], device_id=device, enrol_token=token, **usual | more
    )


def opened(agent: Agent) -> bytes:
    """What an app reads of the active version."""
    with agent.session("secret") as model:
        return model.path.read_bytes()


class Asking(KeyedDevice):
    """A device that asks for release keys, as a stranger's client would."""

    def __init__(self, http: httpx.Client, device_id: str, enrol_token: str, *, names_recipient: bool = False) -> None:
        super().__init__(http, device_id)
        self.recipient = X25519PrivateKey.generate()
        challenge = self.challenge()
        more = {"recipient": self.named_recipient(challenge)} if names_recipient else {}
        answer = self.enrol(enrol_token, challenge=challenge, **more)
        self.credential = answer.raise_for_status().json()["credential"]
        self.headers = self.bearer(self.credential)

    def named_recipient(self, challenge: str, *, key: Ed25519PrivateKey | None = None) -> dict[str, str]:
        """What an enrolment says of the recipient key. `key`: who signs it, if not the device."""
        recipient = recipient_key_of(self.recipient)
        text = recipient_text(
            challenge=challenge, device_id=self.device_id, public_key=self.public_key, recipient=recipient
        )
        return {"key": recipient, "signature": prove(key or self.key, text, challenge=challenge).signature}

    def request(self, model: str = "secret", serial: int = 1, *, recipient: str | None = None) -> dict[str, Any]:
        """The body of a request."""
        recipient, challenge = recipient or recipient_key_of(self.recipient), self.challenge()
        text = release_key_text(
            challenge=challenge,
            device_id=self.device_id,
            public_key=self.public_key,
            model=model,
            serial=serial,
            recipient=recipient,
        )
        proof = plain(prove(self.key, text, challenge=challenge))
        return {"model": model, "serial": serial, "recipient": recipient, "proof": proof}

    def ask(self, body: dict[str, Any] | None = None, **asked: Any) -> httpx.Response:
        return self.http.post("/device/v1/release-key", json=body or self.request(**asked), headers=self.headers)
