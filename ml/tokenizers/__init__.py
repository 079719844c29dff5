"""Text to vectors, vectors to semantic IDs, prompts to tokens."""
