"""The admin API: routes and typed views, a file a resource. No rule is here; the rules are in `flows`."""
