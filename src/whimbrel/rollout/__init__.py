"""Who runs what, and when: plans, policies, the decision, the rollout's states and its gate. Pure."""
