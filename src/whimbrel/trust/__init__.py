"""What may be believed: the roles, who delegates to whom, and which paths each role may sign. Pure rules over TUF."""
