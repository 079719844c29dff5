"""When assets run: jobs, the command line, and the composition root."""
