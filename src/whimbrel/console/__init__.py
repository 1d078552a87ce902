"""What do people look at? Charts, and the pages that show them."""
