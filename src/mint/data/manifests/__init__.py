"""Lists of clips: reading, indexing, checking, sharding, and the prompts of their tasks."""
