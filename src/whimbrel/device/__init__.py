"""The device's mind: pure. What a device knows, what can happen to it, and what it does then."""
