"""Experiments: begun, judged and concluded."""
