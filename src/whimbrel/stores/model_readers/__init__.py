"""What a format's own library reads out of a model file: one module for each format; `formats.py` is their table.

A reader runs in a child process only (`python -m whimbrel.stores.model_readers`, started by `inspection`): a library
may abort, loop or eat the memory of the process that calls it.
"""
