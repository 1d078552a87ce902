"""The story that `make demo` tells: its models, its fleet of real agents, and the server beside them."""
