"""The server's body: static files, the device API, the admin API and the controllers, in one process or several."""
