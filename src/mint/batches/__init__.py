"""Answers of a trained model for many clips, written to one file, in work that a kill does not undo."""
