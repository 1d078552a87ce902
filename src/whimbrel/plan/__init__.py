"""What a person asks for: plans of rollouts and experiments, their limits, and the states that they pass. Pure."""
