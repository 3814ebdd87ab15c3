"""The only place where links and routes are derived from the map."""
