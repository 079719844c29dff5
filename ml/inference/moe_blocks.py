"""Find, observe and alter the sparse layers of a transformers mixture-of-experts model.

Works on every model whose sparse block has a router `gate` that returns (logits, weights,
indices) and an `experts` module with stacked weights `gate_up_proj` [M, 2I, D] and `down_proj`
[M, D, I]: Mixtral, OLMoE and their relatives in transformers 5. Shared experts are not routed
and therefore not seen.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TypeGuard

from torch import Tensor, nn

# Shapes: M experts, D model width, I expert width, T tokens of a batch, K experts per token.


class Router(nn.Module):
    """What type checkers know of a router."""

    weight: Tensor


class StackedExperts(nn.Module):
    """What type checkers know of unbalanced experts."""

    gate_up_proj: Tensor
    down_proj: Tensor
    act_fn: Callable[[Tensor], Tensor]


class SparseBlock(nn.Module):
    """What type checkers know of a sparse block, with stacked or balanced experts."""

    gate: Router
    experts: nn.Module


def sparse_blocks(model: nn.Module) -> list[SparseBlock]:
    """Return the sparse blocks of a model in order.

    Raises:
        ValueError: If the model has none.
    """
    blocks = [module for module in model.modules() if _is_sparse_block(module)]
    if not blocks:
        raise ValueError(f"{type(model).__name__} has no sparse expert layer to balance")
    return blocks


def num_experts(block: SparseBlock) -> int:
    """Return the number of routed experts of a sparse block."""
    return int(block.gate.weight.shape[0])


@contextmanager
def router_choices(model: nn.Module) -> Iterator[list[Tensor]]:
    """Record the experts that the routers choose, one [T, K] tensor per layer and forward pass.

    The list is the caller's to clear between batches.
    """
    record: list[Tensor] = []

    def hook(module: nn.Module, args: tuple[Tensor, ...], output: tuple[Tensor, ...]) -> None:
        record.append(output[2].detach())

    with ExitStack() as stack:
        for block in sparse_blocks(model):
            stack.enter_context(_removed_after(block.gate.register_forward_hook(hook)))
        yield record


@contextmanager
def expert_inputs(model: nn.Module) -> Iterator[list[tuple[Tensor, Tensor]]]:
    """Record what enters the experts: (hidden [T, D], chosen experts [T, K]) per layer."""
    record: list[tuple[Tensor, Tensor]] = []

    def hook(module: nn.Module, args: tuple[Tensor, ...]) -> None:
        record.append((args[0].detach(), args[1].detach()))

    with ExitStack() as stack:
        for block in sparse_blocks(model):
            stack.enter_context(_removed_after(block.experts.register_forward_pre_hook(hook)))
        yield record


@contextmanager
def silenced_expert(model: nn.Module, *, layer: int, expert: int) -> Iterator[None]:
    """Zero one expert's output for a while; the gate weights of the others stay as they are."""

    def hook(module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        hidden, chosen, weights = args[:3]
        return hidden, chosen, weights.masked_fill(chosen == expert, 0.0), *args[3:]

    block = sparse_blocks(model)[layer]
    with _removed_after(block.experts.register_forward_pre_hook(hook)):
        yield


@contextmanager
def _removed_after(handle) -> Iterator[None]:
    try:
        yield
    finally:
        handle.remove()


def _is_sparse_block(module: nn.Module) -> TypeGuard[SparseBlock]:
    gate, experts = getattr(module, "gate", None), getattr(module, "experts", None)
    return isinstance(gate, nn.Module) and isinstance(experts, nn.Module) and _is_stacked(experts)


def _is_stacked(experts: nn.Module) -> bool:
    return hasattr(experts, "num_instances") or (
        hasattr(experts, "gate_up_proj") and hasattr(experts, "down_proj")
    )
