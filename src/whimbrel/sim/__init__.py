"""Worlds from a seed: fleets, networks, disks, faults and the models that they carry."""
