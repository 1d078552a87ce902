"""The server's mind: what happens, step by step, when a version is published, a rollout moves, or a report comes in.

No I/O of its own: everything it needs of the world comes through `ports`. The rooms, from below (a contract keeps the
order): `records` are the rows; `audit`, `quarantine`, `judging`, `versions`, `wording` and `files` serve all;
`reports` tallies what devices tell; `rollouts` and `experiments` judge it and act; `publishing` stands beside them.
"""
