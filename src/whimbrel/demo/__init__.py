"""What `whimbrel demo` needs: a fleet of real agents, a server beside it, and models that were trained for it."""
