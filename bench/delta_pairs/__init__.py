"""Which models does the delta benchmark run on? Pairs of versions, trained, cut, quantised and merged here."""
