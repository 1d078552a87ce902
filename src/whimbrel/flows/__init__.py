"""The server's mind: what happens, step by step, when a version is published, a rollout moves, or a report comes in.

No I/O of its own: everything it needs of the world comes through `ports`.
"""
