"""Frozen language models, one file per family: they read soft prompts, score answers and generate."""
