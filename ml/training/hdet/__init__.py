"""HDET: replicas that explore hyper-parameters while they train."""
