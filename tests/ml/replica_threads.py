"""Replicas as threads of one process: real exchanges over barriers, without a process group."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch
from torch import Tensor

Result = TypeVar("Result")


class ThreadReplicas:
    """Exchange tensors between threads; every exchange waits for all of them."""

    def __init__(self, rank: int, board: list[Tensor | None], barrier: threading.Barrier) -> None:
        """Take a place at the board where tensors are left for the others."""
        self.rank, self.size = rank, len(board)
        self._board, self._barrier = board, barrier

    def gather(self, tensor: Tensor) -> Tensor:
        self._board[self.rank] = tensor.clone()
        self._barrier.wait()
        parts = [part for part in self._board if part is not None]
        self._barrier.wait()
        return torch.stack(parts)

    def sum(self, tensor: Tensor) -> Tensor:
        parts = self.gather(tensor)
        total = parts[0].clone()
        for part in parts[1:]:
            total += part
        return total

    def maximum(self, tensor: Tensor) -> Tensor:
        return self.gather(tensor).amax(dim=0)

    def broadcast(self, tensor: Tensor) -> None:
        tensor.detach().copy_(self.gather(tensor.detach())[0])


def on_replicas(size: int, run: Callable[[ThreadReplicas], Result]) -> list[Result]:
    """Run a function on every replica at once; return the results by rank."""
    board: list[Tensor | None] = [None] * size
    barrier = threading.Barrier(size, timeout=60)

    failures: list[BaseException] = []

    def guarded(rank: int) -> Result | None:
        try:
            return run(ThreadReplicas(rank, board, barrier))
        except threading.BrokenBarrierError:
            return None
        except BaseException as error:
            failures.append(error)
            barrier.abort()
            return None

    with ThreadPoolExecutor(size) as pool:
        results = list(pool.map(guarded, range(size)))
    if failures:
        raise failures[0]
    return [result for result in results if result is not None]
