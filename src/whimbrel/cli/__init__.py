"""The command line: one file a command group. Every command teaches by `--help` and speaks JSON by `--json`."""
