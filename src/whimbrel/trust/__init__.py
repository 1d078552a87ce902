"""What may be believed: the roles, who delegates to whom, and the paths that each may sign. Pure rules over TUF."""
