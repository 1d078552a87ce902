"""Devices and enrolment tokens of before migration 0019 are there after it, and tokens still let devices in."""

from pathlib import Path

import alembic.command
from sqlalchemy import text

from whimbrel.flows.devices.enrol import EnrolmentRequest, check_credential, enrol_device
from whimbrel.model.documents import digest_of
from whimbrel.stores.database import Database, alembic_config
from whimbrel.stores.transaction import transaction

_DEVICE = (
    "INSERT INTO device (namespace, device_id, key, credential_sha256, labels, operator_labels, enrolled_at, seen_at) "
    "VALUES ('default', 'old', 1, :credential, :none, :none, 1000.5, 2000)"
)
_SECRET = (
    "INSERT INTO secret (namespace, sha256, kind, name, created_at) VALUES ('default', :sha256, :kind, :name, :at)"
)


def test_old_devices_are_shared_since_they_enrolled_and_old_tokens_go_on(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path}/registry.db")
    try:
        with database.transaction() as connection:
            alembic.command.upgrade(alembic_config(connection), "0016")
            connection.execute(text(_DEVICE), {"credential": digest_of(b"c" * 20), "none": b"{}"})
            for secret, kind, name, at in (
                ("one", "enrol", "more", 10.0),
                ("two", "enrol", "more", 20.0),  # every token was called so that nobody named
                ("first", "enrol", "first", 5.0),
                ("person", "admin", "first", 5.0),
            ):
                row = {"sha256": digest_of(secret.encode()), "kind": kind, "name": name, "at": at}
                connection.execute(text(_SECRET), row)
        database.migrate()
        with transaction(database, "default") as stores:
            device = check_credential(stores.enrolments.known("old"), "c" * 20)
            assert (device.admission, device.admitted_at, device.enrolled_at) == ("shared", 1000.5, 1000.5)
            assert (device.public_key, device.epoch) == (None, 1)
            assert stores.inventory.device("old").admitted_at == 1000.5
            listed = [(each.name, each.tokens, each.created_at) for each in stores.enrolments.tokens()]
            assert listed == [("more", 2, 10.0), ("first", 1, 5.0)]
            parts = stores.enrolments, stores.inventory, stores.fleet, stores.registry
            for secret in ("one", "two", "first"):
                asked = EnrolmentRequest(device_id=f"new-{secret}", secret=secret)
                assert enrol_device(*parts, asked, credential="n" * 43, now=3000.0).admission == "shared"
            assert stores.enrolments.token("person") is None
            assert stores.accounts.signed_in("person", now=9.0) is not None
    finally:
        database.close()
