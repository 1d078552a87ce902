"""The server's mind: publish, start, check, ingest, advance. No I/O of its own."""
