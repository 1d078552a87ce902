"""Other people's worlds: their formats are read and written here, and what they mean is said in our nouns."""
