"""Files that people write: plans, cards, windows, and the YAML that they are in."""
