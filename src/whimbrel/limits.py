"""Every bound, with its unit and its reason. An error about a limit names the number."""

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB

# --- names ---
NAME_CHARS = 64  # a model, namespace, label key or metric: its name becomes a path segment and a column
LABEL_VALUE_CHARS = 128  # Kubernetes takes 63; hardware names are longer
LABELS = 64  # labels of a device: each is matched on every decision
DEVICE_MODELS = 64  # models that a device follows: each costs a few files a refresh
DEVICE_ID_BYTES = 128  # UTF-8; a UUID has 36, an IMEI 15, an ARN up to 100

# --- enrolment ---
ENROLMENTS_A_MINUTE = 600  # new ids by one name of enrolment tokens: a fleet of 500 on a bench, and no flood of ids
ENROLMENTS_A_MINUTE_MAX = 600_000  # what an operator may set: 10,000 a second
ENROL_TOKEN_USES = 10_000_000  # what an operator may set for one token: a fleet
ENROL_TOKENS_AT_ONCE = 10_000  # of one name: a production lot; some 500 KB of tokens
ENROL_TERMS_BYTES = 512  # of the labels that terms name: they travel in every device token
ALLOW_AGAIN_S = 86400.0  # for which a person lets an id come back with another key, where nothing else is said
ALLOW_AGAIN_MAX_S = 30 * 86400.0  # a board travels to a workshop and back in less
ATTESTATION_CERTIFICATES = 8  # of a chain: Android's have four or five
ATTESTATION_CERTIFICATE_CHARS = 11_000  # base64url of 8 KiB; an attestation certificate has about 1 KiB
CHALLENGE_LIFE_S = 120.0  # in which a device answers: a slow link and a slow key store need a few seconds

# --- the inventory ---
DEVICE_EPOCHS = 64  # installations of a device whose newest windows are known: one a boot, the newest ones
SPIKE_DEVICES = 50  # enrolled with a shared token in an hour: fewer are a shelf of boards, and no spike
SPIKE_OF_FLEET = 0.01  # of the devices enrolled before: fewer could decide nothing
SPIKE_TIMES = 4  # times the busiest hour of the two weeks before
SPIKE_LOOK_S = 60.0  # seconds between two looks for a spike
SPIKE_USUAL_S = 14 * 86400.0  # seconds back in which an hour shows what is usual
DEVICES_A_PAGE = 1000  # some 500 KB of JSON
DEVICES_A_QUERY = 2000  # read at once where labels are looked at
DEVICES_LOOKED_AT = 100_000  # devices whose labels one page looks at: a second or two
WAITING_CHARS = 200  # what a device waits for, in a sentence
WINDOW_DIGESTS = 8  # of an installation: what a network delays is no older than 40 minutes
DUPLICATE_SIGNS = 2  # one sign of a second installation may be an accident, such as a restored snapshot
DUPLICATE_WITHIN_S = 7 * 86400.0  # between two signs: a machine that is on once a week is noticed, too

# --- run histories: which versions were active on a device (health/run_history.py) ---
RUN_ENTRIES = 200  # that a device keeps: two an update, so some years of one model in 100 KB
RUN_ENTRIES_DROPPED = 50  # the oldest of these at once, where they are too many: a rewrite of all is rare
RUN_ENTRIES_SENT = 32  # with one batch of reports: 16 KB; the others follow with the next ones
RUN_ENTRIES_KEPT = 400  # of a branch, on the server: twice what the device has, so that its past outlives its disk
RUN_BRANCHES = 16  # of one key of a device, on the server: a lost folder and a copied one each begin another
RUN_BRANCHES_IN_ALL = 64  # of a device: four keys that lie fill it, and each new key takes a person
RUN_ENTRY_BYTES = 1000  # one entry, UTF-8; an honest one has 300 to 600
RUN_REASON_CHARS = 200  # why a version was left, in an entry: a sentence
RUN_HEAD_BYTES = 1000  # a signed head, UTF-8; an honest one has 400
RUN_HEAD_S = 3600.0  # between two signed heads where nothing changed: an answer is at most so old, a check costs 100 us
RUN_CLOCK_SLACK_S = (
    300.0  # a clock of a device that is off by less is believed: boards without a battery run a few minutes off
)
RUN_PROOF_BYTES = 16 * MIB  # of a proof that is read: all entries of all branches, each with escapes

# --- documents ---
DOCUMENT_BYTES = 4 * MIB  # one signed document; a release with 1,000 golden values is 200 KiB
EXPLAINED_BYTES = 64 * KIB  # of a refused document that is read again, so that its error shows what was found
TUF_TARGET_BYTES = 256 * MIB  # a target of a foreign repository, which `tuf-client` holds in memory
CLOCK_TOLERANCE_S = 86400.0  # by which a device's clock may be slow where nothing else tells of the time
SEQUENCE_LEAP = 1_000_000  # of a policy or line from one refresh to the next: ten years at one every five minutes
SEQUENCE_MAX = 2**53 - 1  # what every reader of JSON holds exactly
DOCUMENT_DEPTH = 32  # nesting of JSON or YAML
VARIANTS = 256  # variants of a version
FILES = 256  # files of a variant: shards, weights beside a graph, a tokenizer; the largest sharded models have 200
FILE_DEPTH = 8  # parts of a file's path: a Core ML package has five, a Hugging Face folder three
TARGET_HARDWARE = 64  # kinds of hardware that a pipeline says it built for
OBJECTION_CHARS = 1000  # of one such sentence
OBJECTIONS = 256  # of publishing, passed over with --unchecked: a few a variant
PINS = 1000  # DESIGN.md: pins by id are for a desk, not for a fleet
LAYERS = 64  # of a policy; a team has a few, each with rollouts of its own
ENTRIES = 256  # rollouts and experiments in a layer
ARMS = 64  # of an entry; an experiment has at most 16, and each may be left by slices
DELAYS = 16  # quantiles of the treated devices' delay: finer than the age groups that they align
DELAY_CLASSES = 16  # hardware classes with a table of their own in an entry: 3 KB of a policy, 1 KB compressed
DELAY_CLASS_DEVICES = 8  # treated devices of a class, below which all devices' table says more than its own
DELAY_S = 30 * 86400.0  # the longest delay in a policy; a plan lasts days
DELAY_SAMPLE = 2048  # treated devices of a stage from which the delay is estimated: each quantile to some 2%
PLACEBO_MOST_HOURS = 3.0  # of the plan; a control waits no longer while the delay is not known
EXPRESSIONS = 64  # terms of a selector
EXPRESSION_VALUES = 256  # of one term: a list of sites or boards
REVOKED = 10_000  # serials of a line: a version a day for 27 years
FLOOR_DAYS = 366  # that a floor holds: longer ones would protect new devices from nothing
FLOOR_WARNING_SHARE = 1 / 3  # of a floor's life that is left when people are told
SIGNATURES_LOOK_S = 60.0  # between two looks for what waits for an offline key
WINDOWS = 32  # maintenance windows of a policy
CHANGELOG_LINES = 1000  # of a version: a person reads some tens
TEXT_CHARS = 20_000  # one free-text field

# --- provenance ---
PROVENANCE_FILE_BYTES = 4 * MIB  # a bundle, what verifies it, or a recipe: a bundle over 10,000 files has 2 MB
MODEL_SIGNATURES = 16  # of a version: one a build, or one each of a few signers
SIGNATURE_DEPTH = 16  # nesting of a bundle and of what is signed in it: the formats have seven
SIGNED_FILES = 20_000  # of one bundle: a Core ML package has some hundred, a sharded model with all its files some more
SIGNATURE_CERTIFICATES = 8  # of a bundle's chain: three or four are usual
ANCHOR_BYTES = 64 * KIB  # a public key or root certificates, in PEM; a certificate has some 2 KiB
SIGNER_CHARS = 1024  # who signed, in words: an e-mail address or the URL of a workflow
DATASETS = 64  # that a version was trained on
PARENTS = 16  # versions that a version was made from: one, or those of a merge
RECIPE_ARGUMENTS = 1024  # of the command
RECIPE_ARGUMENT_CHARS = 4096  # of one argument: a path, or a small program
RECIPE_FILES = 1024  # inputs, or outputs: a folder of data is one archive
REBUILD_S = 3600.0  # a rebuild's time where nothing else is said
REBUILD_MAX_S = 30 * 86400.0  # the longest that can be said
REBUILD_BYTES = 64 * GIB  # written by a rebuild in its folder, where nothing else is said
REBUILD_DESCRIPTORS = 4096  # open files of a process of it: a loader of data opens some thousand
REBUILD_MEMORY_BYTES = 1 << 46  # addresses: runtimes reserve terabytes and use little of them
REBUILD_DEPTH = 100  # folders within folders that a rebuild makes: trees of sources and packages have some twenty
REBUILD_FILES = 100_000  # and folders in the folder of a rebuild: more is not looked through
REBUILD_LOOK_S = 0.5  # between two looks at what it wrote
REBUILD_TOLD_CHARS = 2000  # of what the command wrote last, where it failed
ROLLOUTS_OF_A_VERSION = 1000  # that provenance tells
AUDITED_OF_A_VERSION = 10_000  # entries of a model's audit log that are read for it

# --- the command line ---
CONTEXTS = 256  # of a user: a person knows a few, a script that adds without end is stopped

# --- accounts ---
API_TOKENS = 1000  # of a namespace that are good: people, pipelines, and a few sessions of each person
TOKEN_DAYS = 366.0  # the longest life of a token: whoever left a company a year ago has none
SESSION_HOURS = 24.0  # the longest session of a person who signed in with a provider
SESSIONS = 16  # of a person at once: some machines and contexts; one more ends the oldest
SIGN_INS_PENDING = 1000  # nonces that were given and not used yet; older ones go first
SIGN_IN_FAILURES = 20  # wrong tokens that an address may show in a minute, before its unknown tokens are not looked up
SIGN_IN_ADDRESSES = 10_000  # addresses whose failures are remembered: some 2 MB
KNOWN_TOKENS = 4096  # hashes of tokens that were good lately: theirs are looked up whatever the address did
OIDC_BYTES = 256 * KIB  # a provider's configuration, its keys, or an ID token
OIDC_WAIT_S = 10.0  # for an answer of the provider; of its configuration and keys, for both together
OIDC_FAILED_S = 5.0  # after which a provider that did not answer is asked again: all who wait hear of one try
OIDC_ROLES = 256  # rules that give roles to claims

# --- keys ---
KEY_BYTES = 64 * KIB  # a PEM file, or a reference; the largest ML-DSA key in PEM has 10 KiB
KEYS_OF_A_FOLDER = 256  # files that are read; a publisher of a hundred models has as many
KEY_ID_CHARS = 6  # by which a person names a key at least: shorter ones fit two keys, or the wrong one
KEYS_OF_A_ROLE = 16  # people who may sign one role; each signature is verified on every device
CEREMONY_BYTES = 16 * MIB  # a draft: root, targets and a publisher's role, before and after
CEREMONY_ROLES = 256  # signed roles of one draft: root, targets, and the publishers that sign anew
KEY_PROPOSALS = 16  # changes of keys that wait for a second person; people look at each
KEY_PROPOSAL_S = 14 * 86400.0  # how long one waits: a person is away for a week, and what was signed grows old
EXPIRY_WARNING_S = 60 * 86400.0  # before an offline role expires: people travel, and keys lie in safes
EXPIRY_URGENT_S = 14 * 86400.0  # from here on a warning is critical
EXPIRY_LOOK_S = 60.0  # between two looks of a server at what expires

# --- plans ---
PLAN_BYTES = 256 * KIB  # a plan with all comments has some 10 KiB
STAGES = 32  # of a plan: with more, no stage has enough devices to prove anything
APPROVERS = 16  # people that a stage waits for
FREEZES = 64  # freezes of a plan
ALERT_RULES = 64  # of a plan
GUARDRAILS = 32  # of a plan: each has a part of the false-alarm budget
EXPERIMENT_VARIANTS = 16  # each arm has a part of the budget: more arms would find nothing
EXPERIMENT_COUNTED = 2_000_000  # enrolled devices that `experiment check` looks up one by one: some ten seconds
EXPERIMENT_POINTS = 200  # points of an interval over time in a report: a chart can show no more
WINDOW_FILE_BYTES = 1 * GIB  # a file of tally windows
WINDOW_LINE_BYTES = 1 * MIB  # one cell of it; 64 metrics and 8,000 latency buckets take some 200 KiB
WINDOW_CELLS = 1_000_000  # a month of five-minute windows with 20 classes, three ages and two arms
SKETCH_KEY = 4000  # gamma^4000 is above 1e34: every real time fits
SKETCH_BUCKETS = 4096  # buckets that one device fills in a window; real latencies fill some hundreds
SKETCH_SUM_BUCKETS = 8192  # buckets that a sum over devices fills: every key there is
USER_REPORTS = 1_000_000  # tickets that are kept; 10 million devices, of which one in ten has trouble
USER_REPORTS_A_BATCH = 1000  # 2 MiB with the longest texts
USER_REPORT_CHARS = 2000  # the beginning of a ticket's text; the help desk has the rest
USER_REPORT_FILE_BYTES = 256 * MIB  # one import
JUDGED_CLASSES = 256  # values of a label with a share of the false-alarm budget: the most frequent ones
SMALL_FLEET = 100  # devices of a model whose past is kept: of more, 10% of holdback always leave a control
PAST_WINDOW_S = 7 * 86400.0  # the sums of a device's past are kept by week: a row a week, device and version
PAST_WEEKS = 5  # that are read: what a version did last year says nothing of this year's rooms and users
REHEARSED_S = 5.0  # the least that a rehearsal shortens a window or a refresh to: agents need some seconds to report
REHEARSED_REACH_S = 20.0  # between two looks of a device that is waited for while a rehearsal goes back
SLICE_LABELS = 3  # besides the hardware label: tallies are kept for every combination of their values

# --- standing monitors ---
HEALTH_HOURS = 90 * 24  # the figures of a version are kept by hour so long; then by day
HEALTH_DAYS = 3 * 366  # and by day so long; then they are gone
HEALTH_CLASSES = 64  # hardware classes of a version that one hour tells apart; the others are one row together
HEALTH_METRICS = 64  # metrics of a version in one hour, as of a window: what a device invents finds no place
DEVICE_VERSIONS = 4  # versions of a model that one device counts for in one hour: an update, a way back, another try
OBJECTIVES = 32  # of a model: each has a part of the false-alarm budget
HEALTH_SHOWN = 24 * 366  # hours that one answer may go back
MONITORED_VERSIONS = 4  # of a model, those that most devices run: each has a part of the budget
TAKES_BACK_S = 86400.0  # a monitor takes a model back once in this time: what ails every version is no version's fault
MONITOR_LOOK_S = 2.0  # between two looks at a model's figures
MONITOR_MODELS_A_LOOK = 8  # a hundred models are all looked at within half a minute
MONITOR_ANOMALIES_S = 60.0  # between two looks at two weeks of them

# --- artifacts ---
ARTIFACT_BYTES = 64 * GIB  # one file of a model; the largest open models have shards of 10 GiB
SEALED_BYTES = ARTIFACT_BYTES + ARTIFACT_BYTES // 4096 + MIB  # of a sealed file: 16 bytes for each 64 KiB, and a header
PACKAGE_FILES = 100_000  # files in a folder that is packed as one artifact
COPY_CHUNK_BYTES = 1 * MIB  # of a file that is copied or sent: larger ones are no faster, and more memory
HASH_CHUNK_BYTES = 128 * KIB  # two are in memory at once; larger ones hash no faster
YAML_NODES = 100_000  # values in one YAML file; a card with 1,000 golden values inline has some 2,000
CARD_BYTES = 1 * MIB  # a model card; golden values beyond that come from a file

# --- inspection of model files, in a child process ---
INSPECTION_CPU_S = 60  # a 2 GiB ONNX file takes some 10 s
INSPECTION_WALL_S = 180.0  # the same on a busy machine
INSPECTION_MEMORY_BYTES = 2 * GIB  # plus twice the file: a library maps it, or reads it and parses it
INSPECTED_KEYS = 64  # metadata entries shown; a GGUF tokenizer alone has more
INSPECTED_TEXT_CHARS = 512  # one metadata value shown
INSPECTED_TENSORS = 64  # the largest ones are listed
INSPECTED_OTHER_FILES = 4096  # files that a model's weights lie in, or shards; some exporters write one a tensor
GGUF_VALUES = 100_000  # keys of a GGUF file; models have some 50
GGUF_TENSORS = 1_000_000  # of a GGUF file; a mixture of experts has some 2,000
GGUF_ARRAY_ENTRIES = 50_000_000  # texts in all arrays together: 50 vocabularies of a million, some seconds
GGUF_NAME_BYTES = 1024  # of a key or a tensor's name, and what is kept of a text
PROTOBUF_FIELDS = 1_000_000  # top-level fields of an ONNX or Core ML file that are walked to recognise it

# --- golden values ---
GOLDEN_VALUES = 200_000  # values in all tensors of a probe: some 20 bytes each, in a document of 4 MiB
GOLDEN_FILE_BYTES = 16 * MIB  # an unpacked .npz, or a .json

# --- the device: the journey of one update ---
WRONG_BYTES_FIRST_S = 60.0  # a second download with a wrong hash: a cache on the way keeps it for minutes
WRONG_BYTES_MOST_S = 86400.0  # and then ever less often: each costs the whole file
PROBE_ATTEMPTS = 3  # a device that stops three times while it probes was stopped by the probe
TRIAL_HEALTHY_SESSIONS = 3  # one healthy session may be luck; a model that is used daily commits within days
TRIAL_FAILED_SESSIONS = 3  # one crash may be the app's or the user's own; three before three healthy ones are not
TRIAL_LOOK_S = 5.0  # between two looks at a trial: an app that crashes is started again within seconds
CRASHES_IN_A_ROW = 16  # marks of dead sessions that are read at a start, and kept while no cycle runs
CRASH_LOOP = 3  # crashes in a row, where the signed documents say nothing else; as many as end a trial
STEADY_S = 60.0  # a session that answers well after this time is not one of a crash loop: those end within seconds
REASON_CHARS = 1000  # of the 2,000 that an announcement holds
LIMIT_SESSIONS = 100  # the newest sessions that local limits look at, where the signed documents say nothing else
LIMIT_SESSIONS_MOST = 1000  # that a signed document may ask for: the device keeps a mark of each
LIMIT_FALSE_ALARM = 1e-3  # devices that leave a version which is exactly at its limit, within that many sessions
TRIAL_MOST_S = 86400.0  # after this a trial of an unused model gives way to a newer version
REFUSED = 256  # serials that a device refuses: the newest are remembered
BEFORE = 4  # metrics of an experiment whose means from before travel with every window
BEFORE_WINDOWS = 2016  # a week of five-minute windows; older ones fade
OUTBOX = 64  # announcements of a model that wait for a network: the newest are kept

STEPS_A_PASS = 64  # from offered to committed there are nine
FRESH_S = 1.0  # a policy this young is not refreshed again before an activation

# --- the device: network ---
CONNECT_S = 10.0  # to a server, with TLS: two lost packets on a slow network
CAUSES = 16  # errors behind an error that are looked at for a sentence: a chain may have a circle
READ_S = 30.0  # silence on an open connection
POST_READ_S = 10.0  # of a server that is told something: the next look at the signed policy waits for it
ANSWER_S = 60.0  # one whole answer that is no artifact, also when it comes byte by byte
ANSWER_BYTES = 64 * KIB  # an answer of the device API: a token or a problem document
DOWNLOAD_PASS_S = 60.0  # of one cycle; reports and refreshes go on between cycles, and the partial file stays
PROGRESS_EVERY_S = 1.0  # between two words about a download: people see it move, and a flash disk is spared
PROGRESS_RATE_S = 10.0  # its rate is that of this time: long enough for radio that comes and goes
CHANGE_COMMAND_S = 30.0  # of --on-change: a service restarts in less
CHANGES_WAITING = 64  # for that command: as many as an agent has models
DOWNLOAD_PASS_MOST_S = 1920.0  # where a download cannot be resumed: 1 GB at 4 Mbit/s, without a report meanwhile
BACKOFF_FIRST_S = 1.0  # after the first failure; the wait doubles from failure to failure, with jitter
BACKOFF_DOUBLINGS = 16  # 18 hours; the refresh period is the real cap
PERIOD_MOST_S = 86400.0  # between two refreshes or reports, whatever a policy says: its key may be stolen
POLICY_ACTS_A_DAY = 10_000  # looks, and reports: one every 9 s, or a burst of 17 minutes at ten a second
STOP_MOST_S = 7 * 86400.0  # a stop by the policy alone: people have a week to sign the line that makes it last
STOP_AGAIN_S = (
    30 * 86400.0
)  # after its beginning another stop may begin: a thief of the policy's key stops 7 days of 30
RETRY_AFTER_S = 3600.0  # the longest time that a server may ask a client to wait
BUNDLE_ENTRIES = 20_000  # files in a bundle: a model has some five a version that can be reached
BUNDLE_LIST_BYTES = 4 * MIB  # of the list of these files, at some 150 bytes each; it is read as a whole
BUNDLE_AGE_S = 30 * 86400.0  # a stick travels for weeks; a snapshot lives as long
MIRRORS = 16  # of a device: each is tried before an update is given up for now
MIRROR_WAIT_S = 3600.0  # a mirror that failed is asked again after this time at most
ROOM_BYTES = 16 * MIB  # free room that must be left beside a fetched version: journal, reports, the app's own needs
ROOM_SHARE = 0.02  # plus this share of the fetched bytes: file systems have their own overhead
WAIT_FOR_SESSION_S = 1.0  # between two tries of a swap that waits for a session to end
WAIT_FOR_CONDITIONS_S = 60.0  # between two looks at charger, network and window

# --- the device: telemetry ---
SPOOL_WINDOWS = 1024  # about three days of five-minute windows without a network, then windows are merged
SPOOL_BYTES = 3 * MIB  # below the bound of a document, because it is read again as one
BATCH_WINDOWS = 64  # about 100 KiB
BATCHES_A_PASS = 4  # of reports that a device sends before it does something else
GZIP_FROM_BYTES = 1 * KIB  # of a body: a smaller one is as large compressed
SESSION_METRICS = 64  # of an app's own in one session
RECHECK_S = 7 * 86400.0  # between two runs of the active version's probe, where the signed limits say nothing else
SENSORS_EVERY_S = 10.0  # between two looks at temperature and battery: a driver may take milliseconds for one
SESSION_FILES = 10_000  # summaries that are read in one pass

# --- the device: probes ---
PROBE_WALL_S = 60.0  # a probe on a busy device; most take a second
PROBE_REST_S = (
    60.0  # this long after the last probe the runtimes leave the memory; the next probe waits a second for them
)
PROBE_CPU_S = 30  # of a probe, which a model that loops cannot pass
PROBE_MEMORY_BYTES = 512 * MIB  # plus three times the file, on top of the preloaded runtimes
BENCHMARKS = 64  # variants of a model whose measurements are kept
BENCHMARK_AGE_S = 30 * 86400.0  # a device may have been repaired, a runtime may have become faster
SET_MODELS = 17  # a release and the 16 others that it may require
SET_LEADS = 256  # of a policy: it names few serials, and each came in few sets
UNREAD_RELEASE_S = 3600.0  # a ready version waits so long to learn whether another model's next version requires it
SET_TRIES = 64  # combinations of versions that are looked at, until each model is decided alone: microseconds each
DOCTOR_FREE_BYTES = 1 * GIB  # two versions of a model of a few hundred MB, and a download
DOCTOR_CLOCK_S = 120.0  # between two clocks: NTP keeps them within one
LOCK_WAIT_S = 30.0  # for a lock that is held for moments: a disk may hang for seconds
CAGE_CHECK_S = 30.0  # a Python that starts and tries five things: a fifth of a second, on a slow card seconds
CAGE_END_S = 10.0  # in which what a caged process started is ended: a kill takes effect at once, unless a disk hangs
PROBE_FILES = 2 * FILES  # open files: a runtime may hold all shards of a model at once, and has libraries open
PROBE_ADDRESSES_BYTES = 256 * MIB  # plus twice the memory budget: addresses that are reserved and not used
REFERENCE_BINS = 64  # bins of predictions: 1,000 devices cannot fill more
PROBE_ANSWER_BYTES = 64 * KIB  # an answer is some numbers and a sentence
PROBE_RUNS = 5  # the latency is their median
PROBE_TIMING_S = 5.0  # after this no further run begins: a slow model keeps within the time of a probe
SMOKE_INPUT_BYTES = 64 * MIB  # of made-up inputs: larger ones would be most of a probe's memory
PROBE_LINE_BYTES = 2 * DOCUMENT_BYTES  # a request holds a signature and a probe

# --- the device: the shadow ---
SHADOW_QUEUE = 8  # calls that wait for the worker; more are dropped, and counted
SHADOW_QUEUE_BYTES = 32 * MIB  # in the arrays of these calls
SHADOW_CALL_BYTES = 16 * MIB  # one call: copied in some 5 ms
SHADOW_LINE_BYTES = 256 * KIB  # the line before a call's bytes (names, types, shapes), and an answer
SHADOW_WALL_S = 10.0  # one call of one version, at the lowest priority
SHADOW_GRACE_S = 2.0  # how much longer the app's process waits than the worker
SHADOW_START_S = 60.0  # one version is loaded, at the lowest priority
SHADOW_IDLE_S = 60.0  # after this time without a call the worker ends
SHADOW_LOOK_S = 1.0  # between two looks of an app at what it should shadow
SHADOW_FLUSH_S = 5.0  # between two writes of the sums
SHADOW_CLOSE_S = 1.0  # `Agent.close` waits this long for the thread, twice
SHADOW_CRASHES = 3  # one crash may be the machine's fault; after three this device tries the candidate no more

# --- delta ---
DELTA_SEGMENT_ELEMENTS = (
    256 * KIB
)  # bytes of numbers decoded at once: 3 MB of working memory, and pages that are worth their head
DELTA_GROUP_BYTES = 2 * MIB  # differences that share their entropy tables: what an encoder holds at once
DELTA_STATES_LOG = (
    12  # of a chunk's table: 16 bytes a state, 255 chunks; pco's level 9 makes 2**11, its format allows 2**14
)
DELTA_ROW_ELEMENTS = 64 * KIB  # one spread a row; longer rows are cut
DELTA_COPY_BYTES = 1 * MIB  # opaque bytes coded at once
DELTA_GLUE_BYTES = 4 * MIB  # headers and padding, coded as one; a bigger gap is coded as opaque bytes
DELTA_WINDOW_MARGIN_BYTES = 256 * KIB  # how far opaque bytes may have moved and still find their like in the base
DELTA_GLUE_GAP_BYTES = 1 * MIB  # between two tensors; GGUF vocabularies are larger
DELTA_WHOLE_NUMBER_BYTES = 512 * KIB  # above this, changed numbers code better as numbers
DELTA_WHOLE_PATCH_BYTES = 64 * KIB  # for a larger patch no byte-wise one is tried, unless glue is most of it
DELTA_WHOLE_BYTES = 2 * MIB  # base or target that a byte-wise patch may hold in memory
DELTA_HEAD_BYTES = 8 * MIB  # a patch's head, expanded: 64 GiB of codes have 262,144 segments of 24 bytes
DELTA_FILES = 256  # files of an artifact, all open at once: shards and packages; larger folders are packed
DELTA_PATH_CHARS = 1024  # of a file in an artifact; file systems allow 4,096
DELTA_RANGES = 100_000  # the largest mixture-of-experts models have 50,000 tensors
DELTA_RANK = 256  # columns of a low-rank factor
DELTA_FACTOR_ELEMENTS = 1 * MIB  # numbers in the two factors of one tensor
DELTA_FACTOR_SIDE = 32 * KIB  # rows, or columns: the search for factors holds 24 numbers a row
DELTA_HEADER_BYTES = 64 * MIB  # a container's own header: GGUF vocabularies take 10 MB, safetensors allows 100 MB
DELTA_TENSORS = 100_000  # tensors of a container
DELTA_TENSOR_NAME_BYTES = 1024  # the longest ones of real models have 200
DELTA_DIMENSIONS = 16  # of a tensor; real models have up to 6
DELTA_CONTAINER_STEPS = 4_000_000  # fields a parser looks at before it gives up: a bound on its time
DELTA_THREADS = 64  # of the codec: each holds its working memory
DELTA_KEPT_BYTES = 8 * MIB  # freed memory that may stay with the process for the next segment
DELTA_THREAD_BYTES = 16 * MIB  # the working memory of one thread of the codec

# --- sealed releases ---
RELEASE_KEY_BYTES = 256  # an age identity has 74 characters
SEALED_KEY_BYTES = 2 * KIB  # one as the registry keeps it, with the names that it is bound to: 600 bytes
RELEASE_KEYS_AN_HOUR = 60  # that a device is given: it asks once a version, and again after a power cut
RELEASE_KEY_DEVICES = 100_000  # whose requests one process counts in an hour; those of longest ago are forgotten first
AGE_HEADER_BYTES = 4 * KIB  # of a sealed file: 200 bytes for its one key; 100,000 keys cost a device eight minutes
SEALED_KEYS_TRIED = 100  # of the newest sealed versions, to see whether the sealing key is the right one: 20 ms
SEALED_PATCHES = 256  # that a publisher makes of one sealed version: a few a file
BUNDLE_KEYS = 64  # sealed versions of a model in a bundle: it holds those that a policy names
BUNDLE_DEVICES = 1000  # that the keys of one bundle are sealed to: a bundle is for a desk, or a site

# --- ways to an artifact ---
DELTA_STEPS = 4096  # entries of one index; 256 variants with a dozen bases each
DELTA_CHAIN = 8  # steps of one way: each costs a whole file of writing
DELTA_BETWEEN = 4  # times the wanted artifact that one on the way to it may have
DELTA_BETWEEN_BYTES = MIB  # that a wanted artifact counts as at least: a table beside a small graph may grow
DELTA_TRIES = 4  # ways that are tried before the whole file is fetched: each may cost a request for nothing
DELTA_BASES = 2  # newest earlier versions that get a direct patch, unless the model says otherwise
DELTA_BASES_BY_INVENTORY = 6  # further versions that devices run, the most frequent first
DELTA_WORTH = 0.9  # of the compressed whole file, or of the plain one: a larger patch is not kept
DELTA_BUILD_S = 3600.0  # for one patch; at 40 MB/s that is 140 GB

# --- forecasts ---
FORECAST_DEVICES = 1_000_000_000  # of a simulated fleet: a hundred times the largest that was measured
FORECAST_DECIDED = 20_000_000  # simulated devices that are decided one by one, over all fleets: some seconds
FORECAST_RUNS = 10_000  # rollouts of each effect
FORECAST_CHUNK = 50  # rollouts that are simulated side by side: some MB of arrays
FORECAST_EFFECTS = 64  # of a simulated version: each is a run of its own
FORECAST_WINDOWS = 20_000  # of a rollout: ten weeks of five-minute windows
FORECAST_CLASSES = 64  # hardware classes, regions, or segments of a simulated fleet
HISTORY_ROLLOUTS = 10  # the newest rollouts, from which a fleet's history is read
HISTORY_WINDOWS = 2016  # of each rollout, from its start: a week of five-minute windows
HISTORY_DELAYS = 100_000  # devices of each rollout whose delays are read
FORECAST_GROUPS = 16  # presence groups, or earlier versions

# --- charts ---
CHART_ROWS = 20_000  # points of one chart: drawing more takes longer than reading it

# --- audit ---
AUDIT_PAGE = 1000  # entries in one answer: about 1 MB
AUDIT_LINE_BYTES = 2 * DOCUMENT_BYTES  # a line of an export: an entry with its evidence
AUDIT_ANCHORS = 10_000  # in the files that one check is given: 27 years of daily ones
AUDIT_ANCHOR_HOURS = 168  # at most between two anchors that a server sends: what is between them is not proven yet
AUDIT_ANCHOR_LOOK_S = 5.0  # between two looks at whether an anchor is due: a person waits for the first one
AUDIT_BOUNDED_S = 60.0  # in which acts that anybody may repeat have so many entries, and one that counts the others:
AUDIT_BOUNDED_OWN = 20  # enrolments with an entry of their own: a desk, and no flood
AUDIT_BOUNDED_KINDS = 64  # namespaces and actions that one process counts
AUDIT_BOUNDED_NAMES = 256  # addresses or tokens that are told from each other in a minute
AUDIT_BOUNDED_TOLD = 8  # of these that an entry names
ROW_MAX = 2**63 - 1  # the largest number of a row

# --- versions of a policy ---
POLICIES_SHOWN = 100  # in one list
POLICY_ROLES = 5000  # versions of a policy's role that are read for it: deltas and renewals make some, too

# --- alerts ---
RECEIVERS = 64  # of a repository
ALERT_ADDRESSES = 32  # mailboxes of one receiver
SECRET_BYTES = 4096  # a key, a token, a password, an address
ALERT_ANSWER_BYTES = 16 * KIB  # no more of a receiver's answer is read
ALERT_SEND_S = 10.0  # for one delivery: a receiver that hangs occupies one of the places below
ALERTS_AT_ONCE = 8  # deliveries under way
ALERTS_A_ROUND = 256  # due alerts that are read in one round
ALERT_RETRY_S = 2.0  # before the second try; the wait doubles from try to try, with full jitter
ALERT_RETRY_MOST_S = 900.0  # the longest such wait
ALERT_WAIT_MOST_S = 3600.0  # the longest wait that a receiver may ask for
ALERT_GIVE_UP_S = 86400.0  # after a day nobody wants to be woken by it
ALERT_HORIZON_S = 7 * 86400.0  # older entries of the audit log make no alerts
ALERT_GROUP_S = 3600.0  # the same event of the same stage within this time is told once
ALERT_POINTS = 400  # windows in the evidence plot

# --- the server: connections ---
CONNECTIONS = 20_000  # of devices at once, where the process may have as many descriptors; some 10 KB each
ADMIN_CONNECTIONS = 512  # of people and scripts: their own, which no device can use up
CONNECTIONS_AN_ADDRESS = 1024  # a site's devices behind one address; at most a quarter of all connections
RESERVED_PART = 8  # one in so many connections is for addresses that have none: hundreds of attackers do not fill these
REQUESTS_AN_ADDRESS = 256  # under way at once, also where a proxy brings those of many addresses
WAITING_CONNECTIONS = 1024  # which the kernel has made and nobody has accepted yet
DESCRIPTORS_KEPT = 128  # for the database, the log, libraries and refusals: connections get the others
DESCRIPTORS_LEAST = 256  # with fewer a server does not start: it would refuse its own devices
ACCEPTED_AT_ONCE = 64  # connections, then other work has its turn
MADE_ROOM_FOR = 64  # the connections closed at once that were idle longest, where there are as many as there may be
ROOM_AFTER_S = 1.0  # an idle connection gives way no sooner: a request may be on its way
ACCEPT_PAUSE_S = 1.0  # after the system had no descriptor or memory for a connection
HANDSHAKE_S = 10.0  # of TLS
TLS_FILE_BYTES = 256 * KIB  # a certificate with those above it, or a key: some 10 KiB
HEAD_S = 10.0  # for a whole head of a request, however it drips; slow networks need some round trips
HEAD_BYTES = 32 * KIB  # of a request line and its headers; an agent sends 1 KiB
URL_BYTES = 8 * KIB  # the longest of ours, with a selector as a query, has some 2 KiB
HEADERS = 100  # of a request, with the trailers of its body
PIPELINED = 16  # requests on a connection that wait for an earlier one: each holds its headers
BODY_WAIT_S = 30.0  # of silence in the middle of a body
BODY_RATE_BYTES_S = 1 * KIB  # of a body, after its first BODY_WAIT_S: slower than the slowest radio is an attack
IDLE_S = 75.0  # between two requests on a connection
SEND_WAIT_S = 60.0  # in which a client takes nothing of an answer: 48 KiB leave a buffer in less on any network
CLOSE_S = 5.0  # for the rest of an answer, or of a body that is refused, before a connection is cut
DRAINED_BYTES = 1 * MIB  # of a body, after its answer: the connection serves again; a longer one is cut off
SWEEP_S = 1.0  # between two looks at all connections' deadlines: 10 ms for 20,000
DAMPED_LOG_S = 10.0  # refusals of one kind are one line of the log in this time, with their number

# --- the server: requests ---
DEVICE_BODY_BYTES = 1 * MIB  # a batch of 256 windows with full sketches is about 200 KiB
DEVICE_BODY_S = 30.0  # for the whole body
BODIES_BYTES = 256 * MIB  # of all bodies that are being read; beyond that devices get 503 and come again
QUESTIONS_AT_ONCE = 4  # of devices to the database (enrol, token, check): people's transactions get their turn
QUESTIONS_WAITING = 256  # a second of them; beyond that devices get 503 and come again
INTAKE_MESSAGES = 10_000  # of devices that wait to be written; beyond that devices get 503 and come again
INTAKE_BYTES = 256 * MIB  # of these messages
INTAKE_AT_ONCE = 1000  # messages in one write
DOWNLOADS = 256  # of artifacts at once: each holds a chunk or two; beyond that devices get 503 and come again
DOWNLOADS_AN_ADDRESS = 64  # a site's devices behind one address
DOWNLOAD_COUNTS_BYTES = 1 * MIB  # a smaller part of an artifact is one chunk, and takes no place
DOWNLOAD_RATE_BYTES_S = 16 * KIB  # a slower download gives its place to another that waits for one
DOWNLOAD_GRACE_S = 30.0  # before that
KEPT_DOCUMENTS = 512  # signed documents that a server keeps in memory
KEPT_DOCUMENT_BYTES = 128 * MIB  # of them, plain and compressed
ADMIN_BODY_BYTES = 256 * KIB  # of a request of a person, where its route has no limit of its own below
ADMIN_DOCUMENT_BYTES = 16 * MIB  # with signed documents in base64: a release, the role that lists it, and a line
ADMIN_FILE_BYTES = 2 * MIB  # with a plan, an experiment or settings
BECAUSE_CHARS = 2000  # why a person does something, for the audit log: some sentences
ADMIN_TICKETS_BYTES = 8 * MIB  # 1,000 tickets with the longest texts, of which some characters take six bytes

# --- the console ---
CONSOLE_SESSIONS = 4096  # of browsers, of all people together: some 2 MB; one more ends the one unused longest
CONSOLE_SESSION_S = 12 * 3600.0  # the longest one by a token: a working day; it ends with its token, too
CONSOLE_IDLE_S = 4 * 3600.0  # without a request, after which a session is over
CONSOLE_FORM_BYTES = 64 * KIB  # of one form: of a reason and what carries it on
CONSOLE_FORM_FIELDS = 32  # of one form; the longest of ours has some ten
CONSOLE_SIGN_IN_S = 600.0  # for a sign-in with a provider, as long as its nonce is good
CONSOLE_LIVE = 128  # pages that are kept up to date at once; one more is a page that does not move
CONSOLE_LIVE_S = 600.0  # of one such stream, then the browser asks again: a tab left open holds nothing for ever
CONSOLE_LOOK_S = 1.0  # between two looks whether a page's subject changed: a few queries by key
CONSOLE_CHART_POINTS = 80  # of a line in a chart: more than a column of pixels each is not seen
CONSOLE_HOURS = 7 * 24  # of versions over time
CONSOLE_MODELS = 64  # whose hours a process keeps read: some 100 KB each
CONSOLE_ROWS = 50  # of a table on one page: a person narrows it down, or goes on to the next one
CONSOLE_SILENT_S = 86400.0  # a device that was not heard of for a day is told of: phones are off at night
CONSOLE_SILENT_PERCENT = 5.0  # of the fleet: with fewer that is what happens to devices
CONSOLE_STALE_S = 2 * 3600.0  # since a timestamp was signed, which is due every hour
CONSOLE_KEPT_TIMES = 50  # counts of the whole fleet are kept so many times as long as they took: 2% of one core
CONSOLE_KEPT_LEAST_S = 1.0  # and at least for so long

# --- the server: processes ---
DEVICE_PROCESS_START_S = 60.0  # until the process of the device listener listens
DEVICE_PROCESS_STOP_S = 15.0  # until it has ended in good order
DEVICE_PROCESS_AGAIN_S = 30.0  # the longest wait before it is started again; the first is a second
DEVICE_PROCESS_TELLS_S = 0.05  # between two words to the process of people and controllers
