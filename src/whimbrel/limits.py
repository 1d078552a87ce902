"""Every bound, with its unit and its reason. A limit that is reached is said, with the number, in the error."""

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB

# --- names ---
NAME_CHARS = 64  # a model, namespace, label key or metric: it becomes a path segment and a column
LABEL_VALUE_CHARS = 128  # Kubernetes takes 63; hardware names are longer
LABELS = 64  # labels a device: each is matched on every decision
DEVICE_ID_BYTES = 128  # UTF-8; a UUID has 36, an IMEI 15, an ARN up to 100

# --- documents ---
DOCUMENT_BYTES = 4 * MIB  # one signed document; a release with 1,000 golden values is 200 KiB
DOCUMENT_DEPTH = 32  # nesting of JSON or YAML
VARIANTS = 256  # builds a version
FILES = 64  # files a variant
PINS = 1000  # DESIGN.md: pins by id are for a desk, not for a fleet
LAYERS = 64
ENTRIES = 256  # rollouts and experiments a layer
ARMS = 64
EXPRESSIONS = 64  # terms a selector
EXPRESSION_VALUES = 256
REVOKED = 10_000
CHANGELOG_LINES = 1000
TEXT_CHARS = 20_000  # one free-text field

# --- plans ---
PLAN_BYTES = 256 * KIB
STAGES = 32
GUARDRAILS = 32

# --- artifacts ---
ARTIFACT_BYTES = 64 * GIB
PACKAGE_FILES = 100_000  # files in a folder that is packed as one artifact
COPY_CHUNK_BYTES = 1 * MIB

# --- delta ---
DELTA_SEGMENT_ELEMENTS = 256 * KIB  # numbers decoded at once: a few MB of working memory, pages still worth their head
DELTA_GROUP_BYTES = 2 * MIB  # differences that share their entropy tables: what an encoder holds at once
DELTA_ROW_ELEMENTS = 64 * KIB  # one spread a row; longer rows are cut
DELTA_COPY_BYTES = 1 * MIB  # opaque bytes coded at once
DELTA_GLUE_BYTES = 4 * MIB  # headers and padding, coded as one; a bigger gap is coded as opaque bytes
DELTA_WINDOW_MARGIN_BYTES = 256 * KIB  # how far opaque bytes may have moved and still see their like in the base
DELTA_GLUE_GAP_BYTES = 1 * MIB  # between two tensors; GGUF vocabularies are larger
DELTA_WHOLE_PATCH_BYTES = 64 * KIB  # a larger patch is not tried against a byte-wise one, unless glue is most of it
DELTA_WHOLE_BYTES = 2 * MIB  # base or target that a byte-wise patch may hold in memory
DELTA_HEAD_BYTES = 8 * MIB  # a patch's head, expanded: 64 GiB of codes have 262,144 segments of 24 bytes
DELTA_FILES = 256  # files an artifact, all open at once: shards and packages; larger folders are packed
DELTA_PATH_CHARS = 1024
DELTA_RANGES = 100_000  # the largest mixture-of-experts models have 50,000 tensors
DELTA_RANK = 256  # columns of a low-rank factor
DELTA_FACTOR_ELEMENTS = 1 * MIB  # numbers in the two factors of one tensor
DELTA_FACTOR_SIDE = 32 * KIB  # rows, or columns: the search for factors holds 24 numbers a row
DELTA_HEADER_BYTES = 64 * MIB  # a container's own header: GGUF vocabularies take 10 MB, safetensors allows 100 MB
DELTA_TENSORS = 100_000  # tensors a container
DELTA_TENSOR_NAME_BYTES = 1024
DELTA_DIMENSIONS = 16
DELTA_CONTAINER_STEPS = 4_000_000  # fields a parser looks at before it gives up: a bound on its time
DELTA_THREADS = 64
DELTA_THREAD_BYTES = 16 * MIB  # what one thread of the codec works with, at most
