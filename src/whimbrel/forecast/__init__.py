"""Forecasts: what a plan will do to a fleet of millions, from the real decisions and the real gate."""
