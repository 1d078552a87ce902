"""From evidence to a verdict: the tests that a rollout or experiment runs, and what the gate says of them. Pure."""
