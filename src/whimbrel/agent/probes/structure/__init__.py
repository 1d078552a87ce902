"""Is this file what its format says? Magic, header and bounds, by hand: for devices without the format's runtime.

This is no integrity check: that is the hash. It catches a file of another format, and one that was cut before it was
hashed. One module a format, with a `check(path)` that raises `ValueError` with what was found and expected.
"""
