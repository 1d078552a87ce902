"""Publishing: a version is made ready, accepted, patched and retired."""
