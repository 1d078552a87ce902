"""What devices tell: reports, and the sums that they add up to. Pure arithmetic."""
