"""A process that opens a file of somebody else's: what can it do to the machine? As little as the kernel lets us say.

1. `child.py` starts a Python process that inherits nothing: no environment, no descriptors, no current folder.
2. `walls.py` closes the walls around a process from within, for good: limits, no network, no capabilities, a file
   system that can be read in named places only (`landlock.py`), and no system calls that it does not need
   (`kernel_filter.py`, with the numbers of `call_numbers.py`).
3. `descendants.py` ends whatever a process started, also where that left its group or its session.
4. `check.py` tries all this in a process of its own, and says which walls hold on this machine.

A wall that a system does not offer is left out, and said (`whimbrel doctor`, `whimbrel agent status`). Both wings use
this room: the agent around probes and the shadow, the stores around the readers of model files.
"""
