"""Recordings of one's own: a folder, or a table."""
