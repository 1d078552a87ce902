"""The server's memory and senses: registry, artifacts, inbox, signed repository, the inspection of model files."""
