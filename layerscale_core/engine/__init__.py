"""The engine: requests in, events out, one thread in between."""
