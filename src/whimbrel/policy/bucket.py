"""In which bucket is a device? A number in [0, 1,000,000) that never changes while the layer's salt stays.

key = XXH64(cohort key as UTF-8, seed 0); bucket = XXH64(key as 8 bytes little-endian, seed = salt) % 1,000,000.
Vector: dev-1, salt 42: key 10522668389010243576, bucket 586382. The same in every language with xxHash.

The cohort key is drawn by the server when a device enrols, and never changes after that. Salts, ranges and rollouts are
public, so whoever may name a device could look for an id that falls in the arm of his choice. A device without a cohort
key, which only listens, has its id in its place.

Where an entry of the policy says `bucket_by`, the value of that label stands in the place of the cohort key. Vector:
ann, salt 42: key 811139115053772478, bucket 344805. Value, key and bucket stay on the device: the salt is public, so
whoever had one of them could try every name.
"""

import xxhash

BUCKETS = 1_000_000


def device_key(cohort_key: str) -> int:
    """A device's key, an unsigned 64-bit number. A bucket follows from the key and the salt alone."""
    return xxhash.xxh64_intdigest(cohort_key.encode(), seed=0)


def label_key(value: str) -> int:
    """The key of all devices whose label has this value: the same hash, of the value."""
    return device_key(value)


def bucket(key: int, *, salt: int) -> int:
    """The bucket of the device with `key` in the layer with `salt`."""
    return xxhash.xxh64_intdigest(key.to_bytes(8, "little"), seed=salt) % BUCKETS
