"""The console's routes: pages for people, on the listener of the admin API, with sessions instead of bearer tokens."""
