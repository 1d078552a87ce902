"""Reports: what devices and users tell, as tallies and as history."""
