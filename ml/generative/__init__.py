"""Models that read a prompt and answer it."""
