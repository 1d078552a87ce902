"""The device's body: synchronous; files, HTTP, child processes. `app.Agent` is what an application opens."""
