"""The HTTP API: edge, errors, schemas, routes and wire formats."""
