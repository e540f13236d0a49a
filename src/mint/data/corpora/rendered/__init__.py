"""Corpora that are rendered from a SoundFont."""
