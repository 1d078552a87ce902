"""The runtimes that run a model: one module for each, with a class that is a `golden.Model`.

A module here imports its runtime when it is imported, so only the table of formats (`probes/formats.py`) imports it,
and only where the runtime is installed.
"""
