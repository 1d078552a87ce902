"""Standing monitors: what is told of versions hour by hour, also when nothing rolls out, and what follows from it."""
