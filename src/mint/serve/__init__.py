"""The server: one process with the models in memory, an HTTP API and a web page."""
