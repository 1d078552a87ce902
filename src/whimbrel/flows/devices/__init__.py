"""Devices as people see and govern them: the inventory, labels of operators, blocks, removals, duplicates."""
