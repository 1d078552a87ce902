"""Whole worlds from one seed: fleets, networks, disks, faults, and the checkers of every promise."""
