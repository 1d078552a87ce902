"""The tables of the database, in SQLAlchemy Core: the same on SQLite and PostgreSQL. Only a migration changes them.

The namespace is in every key from the start. Times are POSIX seconds. JSON columns hold our own encoded documents.
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    true,
)

from whimbrel.stores.binary import LargeBinary

metadata = MetaData()

ROW_ID = BigInteger().with_variant(Integer, "sqlite")  # SQLite numbers rows by itself only for INTEGER keys

models = Table(
    "model",
    metadata,
    Column("namespace", String(64), primary_key=True),
    Column("name", String(64), primary_key=True),
    Column("created_at", Float, nullable=False),
    Column("salt", BigInteger, nullable=False),
    Column("settings", LargeBinary, nullable=False),
    Column("baseline", BigInteger),
)

versions = Table(
    "version",
    metadata,
    Column("namespace", String(64), primary_key=True),
    Column("model", String(64), primary_key=True),
    Column("serial", BigInteger, primary_key=True, autoincrement=False),
    Column("version", String(32), nullable=False),
    Column("semantic_version", String(128), nullable=False),
    Column("build_hash", String(12), nullable=False),
    Column("created_at", Float, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("release", LargeBinary, nullable=False),
    Column("retired", Boolean, nullable=False, default=False),
    Column("good", Boolean, nullable=False, default=False),
    UniqueConstraint("namespace", "model", "version"),
    UniqueConstraint("namespace", "model", "semantic_version"),
)

aliases = Table(
    "alias",
    metadata,
    Column("namespace", String(64), primary_key=True),
    Column("model", String(64), primary_key=True),
    Column("alias", String(64), primary_key=True),
    Column("serial", BigInteger, nullable=False),
)

artifacts = Table(
    "artifact",
    metadata,
    Column("namespace", String(64), primary_key=True),
    Column("sha256", String(64), primary_key=True),
    Column("size_bytes", BigInteger, nullable=False),
    Column("created_at", Float, nullable=False),
)

version_artifacts = Table(
    "version_artifact",
    metadata,
    Column("namespace", String(64), primary_key=True),
    Column("model", String(64), primary_key=True),
    Column("serial", BigInteger, primary_key=True, autoincrement=False),
    Column("sha256", String(64), primary_key=True),
    Index("version_artifact_by_digest", "namespace", "sha256"),
)

role_documents = Table(
    "role_document",
    metadata,
    Column("namespace", String(64), primary_key=True),
    Column("role", String(128), primary_key=True),
    Column("version", BigInteger, primary_key=True, autoincrement=False),
    Column("body", LargeBinary, nullable=False),
)

target_documents = Table(
    "target_document",
    metadata,
    Column("namespace", String(64), primary_key=True),
    Column("path", String(256), primary_key=True),
    Column("sha256", String(64), primary_key=True),
    Column("body", LargeBinary, nullable=False),
)

publications = Table(  # the newest timestamp whose files are all in place, and the newest root that is
    "publication",
    metadata,
    Column("namespace", String(64), primary_key=True),
    Column("timestamp_version", BigInteger, nullable=False),
    Column("root_version", BigInteger, nullable=False, server_default="0"),
)

role_expiry = Table(  # when an offline role's newest version expires, and how long before that was warned of it
    "role_expiry",
    metadata,
    Column("namespace", String(64), primary_key=True),
    Column("role", String(128), primary_key=True),
    Column("version", BigInteger, nullable=False),
    Column("expires", Float, nullable=False),
    Column("warned_s", Float, nullable=False),  # a step of flows/publishing/warn_of_expiry; -1: of nothing yet
)

deltas = Table(  # patches that were tried; without a digest: not worth keeping
    "delta",
    metadata,
    Column("namespace", String(64), primary_key=True),
    Column("model", String(64), primary_key=True),
    Column("base", String(64), primary_key=True),
    Column("target", String(64), primary_key=True),
    Column("target_bytes", BigInteger, nullable=False),
    Column("sha256", String(64)),
    Column("size_bytes", BigInteger, nullable=False),
    Column("advice", Text, nullable=False),
    Column("listed", Boolean, nullable=False),
    Column("created_at", Float, nullable=False),
    Index("delta_by_patch", "namespace", "sha256"),
)

sealed_versions = Table(  # versions whose artifacts are age files: their keys, and the patches that publishers made
    "sealed_version",
    metadata,
    Column("namespace", String(64), primary_key=True),
    Column("model", String(64), primary_key=True),
    Column("serial", BigInteger, primary_key=True),
    Column("release_key", LargeBinary, nullable=False),  # an age file to the server's sealing key, which is not here
    Column("steps", LargeBinary, nullable=False),  # of the delta index
    Column("listed", Boolean, nullable=False),  # whether the signed index has them
    Column("created_at", Float, nullable=False),
)

rollouts = Table(
    "rollout",
    metadata,
    Column("namespace", String(64), primary_key=True),
    Column("id", String(64), primary_key=True),
    Column("model", String(64), nullable=False),
    Column("baseline", BigInteger),  # none: its target is the model's first version
    Column("target", BigInteger, nullable=False),
    Column("plan", LargeBinary, nullable=False),
    Column("plan_text", Text, nullable=False),
    Column("state", String(32), nullable=False),
    Column("stage", Integer, nullable=False),
    Column("shares", LargeBinary, nullable=False),
    Column("hour_s", Float, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("stage_since", Float, nullable=False),
    Column("ended_at", Float),
    Column("because", Text, nullable=False),
    Column("without", LargeBinary, nullable=False, server_default="[]"),  # hardware classes that went back
    Column("delays", LargeBinary, nullable=False, server_default="[]"),  # of the treated, as told to the controls
    Column("state_since", Float, nullable=False, server_default="0"),
    Column("override", Text, nullable=False, server_default=""),
    Column("lead", String(64), nullable=False, server_default=""),  # the rollout that it moves with, if any
    Column("members", LargeBinary, nullable=False, server_default="[]"),  # the rollouts that move with it
    Column("salt", BigInteger),  # of its own layer, where that is not the model's
    Column("delays_by_class", LargeBinary, nullable=False, server_default="{}"),
    Column("started_by", String(128), nullable=False, server_default=""),  # the account
    Index("rollout_by_model", "namespace", "model"),
)

approvals = Table(  # who agreed that a stage begins
    "approval",
    metadata,
    Column("id", ROW_ID, primary_key=True),
    Column("namespace", String(64), nullable=False),
    Column("rollout", String(64), nullable=False),
    Column("stage", Integer, nullable=False),
    Column("by", String(128), nullable=False),
    Column("note", Text, nullable=False),
    Column("at", Float, nullable=False),
    Index("approval_by_rollout", "namespace", "rollout"),
)

experiments = Table(
    "experiment",
    metadata,
    Column("namespace", String(64), primary_key=True),
    Column("id", String(64), primary_key=True),
    Column("model", String(64), nullable=False),
    Column("plan", LargeBinary, nullable=False),
    Column("plan_text", Text, nullable=False),
    Column("phase", String(32), nullable=False),
    Column("serials", LargeBinary, nullable=False),  # by variant
    Column("stopped", LargeBinary, nullable=False),  # arms that ended before, and why
    Column("without", LargeBinary, nullable=False, server_default="{}"),  # slices in which arms were stopped
    Column("delays", LargeBinary, nullable=False),  # of the treated, as told to the controls
    Column("delays_by_class", LargeBinary, nullable=False, server_default="{}"),
    Column("winner", String(64)),
    Column("hour_s", Float, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("ended_at", Float),
    Column("because", Text, nullable=False),
    Column("started_by", String(128), nullable=False, server_default=""),  # the account
    Index("experiment_by_model", "namespace", "model"),
)

verdicts = Table(  # what the gate said and what it was given: it may be asked again
    "verdict",
    metadata,
    Column("id", ROW_ID, primary_key=True),
    Column("namespace", String(64), nullable=False),
    Column("rollout", String(64), nullable=False),
    Column("at", Float, nullable=False),
    Column("window", Integer, nullable=False),
    Column("situation", LargeBinary, nullable=False),
    Column("move", String(32), nullable=False),
    Column("because", Text, nullable=False),
    Column("sha256", String(64), nullable=False),
    Index("verdict_by_rollout", "namespace", "rollout"),
)

quarantines = Table(
    "quarantine",
    metadata,
    Column("id", ROW_ID, primary_key=True),
    Column("namespace", String(64), nullable=False),
    Column("model", String(64), nullable=False),
    Column("serial", BigInteger, nullable=False),
    Column("at", Float, nullable=False),
    Column("because", Text, nullable=False),
    Column("selector", LargeBinary, nullable=False),
    Column("lifted_at", Float),  # by a person
    Index("quarantine_by_model", "namespace", "model"),
)

alerts = Table(  # made from the audit log: one row for each entry and receiver
    "alert",
    metadata,
    Column("namespace", String(64), primary_key=True),
    Column("receiver", String(64), primary_key=True),
    Column("audit_id", BigInteger, primary_key=True, autoincrement=False),
    Column("rollout", String(64), nullable=False),  # "" for what is about a device
    Column("device", String(128), nullable=False, server_default=""),
    Column("model", String(64), nullable=False, server_default=""),  # of what is about a model, and no rollout
    Column("moment", String(32), nullable=False),
    Column("stage", Integer, nullable=False),
    Column("at", Float, nullable=False),
    Column("state", String(16), nullable=False),  # waiting, sent, grouped, given_up
    Column("tries", Integer, nullable=False),
    Column("next_at", Float, nullable=False),
    Column("said", Text, nullable=False),  # by the receiver, or why it was not reached
    Index("alert_by_state", "state", "next_at"),
)

alert_receivers = Table(  # when a receiver was first noted: it gets no alert of what was before
    "alert_receiver",
    metadata,
    Column("namespace", String(64), primary_key=True),
    Column("name", String(64), primary_key=True),
    Column("since", Float, nullable=False),
)

devices = Table(
    "device",
    metadata,
    Column("namespace", String(64), primary_key=True),
    Column("device_id", String(128), primary_key=True),
    Column("key", BigInteger, nullable=False),  # XXH64 of the cohort key, or of the id, as a signed number
    Column("cohort_key", String(128)),  # drawn at enrolment; NULL: the device took none, and its id stands in
    Column("credential_sha256", String(64), nullable=False),
    Column("labels", LargeBinary, nullable=False),  # told by the device
    Column("operator_labels", LargeBinary, nullable=False, server_default="{}"),  # given by people
    Column("enrolled_at", Float, nullable=False),
    Column("seen_at", Float, nullable=False),
    Column("admission", String(16), nullable=False, server_default="shared"),  # shared, single_use, attested, person
    Column("admitted_at", Float, nullable=False, server_default="0"),
    Column("enrol_token_name", String(64), nullable=False, server_default=""),  # "": no token was needed
    Column("public_key", String(64)),  # Ed25519, base64url; NULL: it enrolled without a key
    Column("recipient", String(64)),  # X25519, base64url: release keys are sealed to it; NULL: it asked for none yet
    Column("credential_epoch", Integer, nullable=False, server_default="1"),  # one more with each new credential
    Column("credential_at", Float, nullable=False, server_default="0"),  # when the credential was made
    Column("challenged_at", Float, nullable=False, server_default="0"),  # of the last challenge that was taken
    Column("allowed_again_until", Float),  # until then the id may enrol with another key: a person said so
    Column("allowed_again_key", String(64)),  # NULL: with any key
    Column("granted_labels", LargeBinary, nullable=False, server_default="{}"),  # given by the server
    Column("claimable_labels", LargeBinary, nullable=False, server_default="{}"),  # values that it may claim
    Index("device_by_credential", "credential_at"),
    Index("device_by_admission", "namespace", "admitted_at"),
)

enrol_tokens = Table(  # the terms on which devices enrol, by name
    "enrol_token",
    metadata,
    Column("namespace", String(64), primary_key=True),
    Column("name", String(64), primary_key=True),
    Column("terms", LargeBinary, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("actor", String(128), nullable=False),
    Column("revoked_at", Float),
    Column("minute", BigInteger, nullable=False),  # the last minute in which ids came in, since 1970
    Column("minute_uses", Integer, nullable=False),  # new ids in this minute
)

enrol_secrets = Table(  # the tokens themselves, as hashes; a factory's terms have many
    "enrol_secret",
    metadata,
    Column("namespace", String(64), primary_key=True),
    Column("sha256", String(64), primary_key=True),
    Column("name", String(64), nullable=False),
    Column("uses", Integer, nullable=False),
    Index("enrol_secret_by_name", "namespace", "name"),
)

device_access = Table(  # devices that were ever blocked or removed: what they may do now
    "device_access",
    metadata,
    Column("namespace", String(64), primary_key=True),
    Column("device_id", String(128), primary_key=True),
    Column("state", String(16), nullable=False),  # open, blocked, removed
    Column("since", Float, nullable=False),
    Column("not_before", Float, nullable=False),  # tokens from before this time are over: the device was removed
    Column("because", Text, nullable=False),
    Column("actor", String(128), nullable=False),
    Index("device_access_by_time", "since"),
    Index("device_access_by_state", "namespace", "state"),
)

device_duplicates = Table(  # identities that two installations report with
    "device_duplicate",
    metadata,
    Column("namespace", String(64), primary_key=True),
    Column("device_id", String(128), primary_key=True),
    Column("signs", Integer, nullable=False),  # contradictions in the present run of them
    Column("first_at", Float, nullable=False),  # of this run
    Column("last_at", Float, nullable=False),
    Column("noticed_at", Float),  # people were told; NULL: too few signs so far
    Column("because", Text, nullable=False),
)

device_models = Table(
    "device_model",
    metadata,
    Column("namespace", String(64), primary_key=True),
    Column("device_id", String(128), primary_key=True),
    Column("model", String(64), primary_key=True),
    Column("serial", BigInteger),
    Column("hardware_class", String(128), nullable=False),
    Column("at", Float, nullable=False),
    Column("since", Float),  # when it was first heard to run this serial
    Column("waits_for", Text, nullable=False, server_default=""),  # as the device says it
    Column("waits_told_at", Float),
    Column("build_serial", BigInteger),  # the version that the next two are about
    Column("variant", String(64), nullable=False, server_default=""),
    Column("build", LargeBinary, nullable=False, server_default=""),  # with its budgets and measurements
    Index("device_model_by_serial", "namespace", "model", "serial"),
)

sequences = Table(  # the newest window of an installation that was tallied: what comes again counts once
    "report_sequence",
    metadata,
    Column("namespace", String(64), primary_key=True),
    Column("device_id", String(128), primary_key=True),
    Column("epoch", String(64), primary_key=True),
    Column("last", BigInteger, nullable=False),
    Column("at", Float, nullable=False, server_default="0"),  # when its newest window was heard
    Column("digests", LargeBinary, nullable=False, server_default="{}"),  # of the newest windows, by their last number
    Column("hours", LargeBinary, nullable=False, server_default="{}"),  # the device's newest hour on each version
)

health = Table(  # what devices told of a version in an hour or a day, whether anything rolls out or not
    "health",
    metadata,
    Column("namespace", String(64), primary_key=True),
    Column("model", String(64), primary_key=True),
    Column("period_s", Integer, primary_key=True, autoincrement=False),  # 3600 or 86400
    Column("start", Integer, primary_key=True, autoincrement=False),  # periods since 1970 (UTC)
    Column("serial", BigInteger, primary_key=True, autoincrement=False),
    Column("hardware_class", String(128), primary_key=True),
    Column("sums", LargeBinary, nullable=False),  # zlib of our own encoded document
    Index("health_by_start", "namespace", "period_s", "start"),
)

monitor_episodes = Table(  # from when a monitor fires to when it is over
    "monitor_episode",
    metadata,
    Column("id", ROW_ID, primary_key=True),
    Column("namespace", String(64), nullable=False),
    Column("model", String(64), nullable=False),
    Column("serial", BigInteger, nullable=False),
    Column("monitor", String(256), nullable=False),
    Column("since", Float, nullable=False),
    Column("ended_at", Float),
    Column("because", Text, nullable=False),
    Column("outcome", String(32), nullable=False),  # of what the monitor was to do
    Index("monitor_episode_by_model", "namespace", "model", "since"),
)

participations = Table(
    "participation",
    metadata,
    Column("namespace", String(64), primary_key=True),
    Column("rollout", String(64), primary_key=True),
    Column("stage", Integer, primary_key=True, autoincrement=False),
    Column("device_id", String(128), primary_key=True),
    Column("role", String(16), nullable=False),
    Column("hardware_class", String(128), nullable=False),
    Column("slices", LargeBinary, nullable=False, server_default="{}"),
    Column("assigned_at", Float, nullable=False),
    Column("begun_at", Float),
    Column("activated_at", Float),
    Column("reported_at", Float),
    Column("outcome", String(16), nullable=False),
    Column("silence_judged", Boolean, nullable=False),
    Column("values", LargeBinary, nullable=False, server_default="{}"),  # of a device, by metric
    Column("shadowed_at", Float),
    Column("device_window", LargeBinary),  # what the device told in the newest tally window; NULL: nothing yet
    Column("heard_at", Float),
    Column("gap_s", Float, nullable=False, server_default="0"),
    Column("hearing", String(16), nullable=False, server_default=""),
    Column("missed_at", Float),
    Column("used_at", Float),
    Column("proven", Boolean, nullable=False, server_default=true()),  # evidence that moves the rollout
    Index("participation_by_begun_at", "namespace", "rollout", "stage", "begun_at"),
)

tally = Table(
    "tally",
    metadata,
    Column("namespace", String(64), primary_key=True),
    Column("rollout", String(64), primary_key=True),
    Column("window", Integer, primary_key=True, autoincrement=False),
    Column("stage", Integer, primary_key=True, autoincrement=False),
    Column("role", String(16), primary_key=True),
    Column("hardware_class", String(128), primary_key=True),
    Column("slices", String(1024), primary_key=True, server_default=""),
    Column("age_bucket", Integer, primary_key=True, autoincrement=False),
    Column("cell", LargeBinary, nullable=False),
)

user_reports = Table(  # tickets of a help desk: one that comes again counts once
    "user_report",
    metadata,
    Column("namespace", String(64), primary_key=True),
    Column("ticket", String(128), primary_key=True),
    Column("model", String(64), nullable=False),
    Column("device_id", String(128)),
    Column("serial", BigInteger),
    Column("at", Float, nullable=False),
    Column("text", Text, nullable=False),
    Column("fate", String(16), nullable=False),
    Column("decided_at", Float),
    Index("user_report_by_fate", "namespace", "fate"),
    Index("user_report_by_device", "namespace", "device_id"),
)

user_report_feeds = Table(  # when a model's help desk was last heard of
    "user_report_feed",
    metadata,
    Column("namespace", String(64), primary_key=True),
    Column("model", String(64), primary_key=True),
    Column("at", Float, nullable=False),
)

inbox = Table(
    "inbox",
    metadata,
    Column("id", ROW_ID, primary_key=True),
    Column("namespace", String(64), nullable=False),
    Column("device_id", String(128), nullable=False),
    Column("kind", String(16), nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("at", Float, nullable=False),
    sqlite_autoincrement=True,
)

leases = Table(
    "lease",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("holder", String(128), nullable=False),
    Column("until", Float, nullable=False),
)
