"""What will a rollout do to a fleet too large to try it on? The gate and the decisions, over simulated fleets."""
