"""The server's memory: the registry in a database, artifacts and signed metadata as files, keys, and the inbox."""
