"""The command line and the HTTP API: assembles the chosen plugins and serves them."""
