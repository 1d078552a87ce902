"""Rollouts: begun, judged, approved, moved and finished."""
