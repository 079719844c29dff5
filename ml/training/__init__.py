"""The training loop, its learning-rate replicas and its checkpoints."""
