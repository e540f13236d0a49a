"""Bytes to samples: files, members of tar shards, sound inside video."""
