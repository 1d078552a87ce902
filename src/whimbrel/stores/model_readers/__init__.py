"""What does a format's own library read out of a model file? One module a format; `formats.py` is their table.

A reader runs in a child process only (`python -m whimbrel.stores.model_readers`, started by `inspection`): a library
may abort, loop or eat the memory of the process that calls it.
"""
