"""Let all replicas fail where one of them does, so that none waits for another that has ended."""

import errno
import os
from collections.abc import Callable
from typing import TypeVar

import torch

from ml.tensor_files import FULL_DISK
from ml.training.collectives import Collectives

Result = TypeVar("Result")


def together(
    action: Callable[[], Result],
    replicas: Collectives,
    *,
    only_first: bool = False,
) -> Result | None:
    """Do something with files on every replica, or on the first; what fails on one fails on all.

    Args:
        action: What to do; it must not exchange anything.
        replicas: The replicas; all of them call this.
        only_first: Whether replica 0 alone acts.

    Returns:
        What the action returned; None where it was not done.

    Raises:
        OSError: If a file cannot be read or written somewhere, or another replica failed in
            another way; of a full disk only if nothing worse happened.
        Exception: What the action raised here.
    """
    result, failure, code = None, None, 0
    try:
        if not only_first or replicas.rank == 0:
            result = action()
    except OSError as error:
        failure, code = error, error.errno or errno.EIO
    except Exception as error:
        failure, code = error, errno.EIO
    codes = replicas.gather(torch.tensor([code]))[:, 0].tolist()
    failed = [rank for rank, number in enumerate(codes) if number]
    if not failed:
        return result
    worst = min(failed, key=lambda rank: codes[rank] in FULL_DISK)
    if failure is not None and (worst == replicas.rank or not isinstance(failure, OSError)):
        raise failure
    message = f"replica {worst} could not read or write its part: {os.strerror(codes[worst])}"
    raise OSError(codes[worst], message) from failure
