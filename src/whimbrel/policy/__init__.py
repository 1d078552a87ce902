"""Who runs what, now: the policy document and the decision that devices and servers take from it. Pure."""
