"""What came back: reports, tallies, and the evidence in them. Pure arithmetic over sums."""
