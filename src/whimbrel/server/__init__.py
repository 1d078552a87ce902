"""The server's body: static files, the device API, the admin API, the controllers and the alerts."""
