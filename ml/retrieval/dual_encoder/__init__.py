"""Shared causal language model that embeds members and items separately."""
