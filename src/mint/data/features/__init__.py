"""Features of the frozen encoder: computed once, kept on disk, looked up by clip."""
