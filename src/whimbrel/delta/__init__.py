"""How do the bytes of one model file become those of another, with as few new bytes as can be?

Pure: nothing here opens a file or a socket, sleeps, logs, or asks for the time. Bytes come in through `Read`, go out
through `WriteAt`, and threads are the caller's (`whimbrel.patchfile` is the body). The format: docs/reference/delta.md.
"""
