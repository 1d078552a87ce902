"""What the pages of the console show: typed values that the server's routes fill."""
