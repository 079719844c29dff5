"""A small decoder, its examples and its plain training, for the tests of sharded training."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.optim import AdamW

from ml.training.parameters import parameter_groups

# Shapes: B sequences, S tokens.
TOKENS, WIDTH, CLIP_NORM = 22, 8, 12.0


class Block(nn.Module):
    """Mix the width; has a weight that is used on demand only."""

    def __init__(self) -> None:
        """Make new weights."""
        super().__init__()
        self.inner, self.norm = nn.Linear(WIDTH, WIDTH), nn.LayerNorm(WIDTH)
        self.extra = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor, *, more: bool) -> Tensor:
        hidden = torch.relu(self.inner(x))
        return x + self.norm(self.extra(hidden) if more else hidden)


class Decoder(nn.Module):
    """Blocks between tied token weights, a buffer, and a weight that nothing uses."""

    shift: Tensor

    def __init__(self, seed: int) -> None:
        """Make weights that depend on the seed only."""
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.embedding = nn.Embedding(TOKENS, WIDTH)
            self.blocks = nn.ModuleList(Block() for _ in range(2))
            self.head = nn.Linear(WIDTH, TOKENS, bias=False)
            self.head.weight = self.embedding.weight
            self.unused = nn.Linear(WIDTH, WIDTH)
            self.register_buffer("shift", torch.randn(WIDTH))

    def states(self, tokens_BS: Tensor, *, more: bool) -> Tensor:
        x_BSD = self.embedding(tokens_BS) + self.shift
        for block in self.blocks:
            x_BSD = block(x_BSD, more=more)
        return x_BSD


Example = tuple[Tensor, bool]


def summed_loss(model: nn.Module, example: Example) -> tuple[Tensor, Tensor]:
    """Return the summed loss of predicting each token's successor, and the number of rows."""
    assert isinstance(model, Decoder)
    tokens_BS, more = example
    logits = model.head(model.states(tokens_BS[:, :-1], more=more))
    losses = nn.functional.cross_entropy(logits.mT, tokens_BS[:, 1:], reduction="none")
    return losses.mean(dim=1).sum(), torch.tensor(float(len(tokens_BS)))


def examples(step: int) -> list[Example]:
    """Return what ranks 0 and 1 see: 3 and 5 rows; only rank 0's use the extra weights."""
    generator = torch.Generator().manual_seed(step)
    return [
        (torch.randint(TOKENS, (rows, 6), generator=generator), more)
        for rows, more in ((3, True), (5, False))
    ]


def optimizer_of(model: nn.Module) -> AdamW:
    return AdamW(parameter_groups(model, weight_decay=0.1), lr=1e-2, fused=True)


def plain_steps(model: Decoder, optimizer: AdamW, steps: Sequence[int]) -> list[float]:
    """Train one process on everything; return the norms of the mean gradients."""
    norms = []
    for step in steps:
        optimizer.zero_grad(set_to_none=True)
        pairs = [summed_loss(model, example) for example in examples(step)]
        weight = torch.stack([weight for _, weight in pairs]).sum()
        (torch.stack([loss for loss, _ in pairs]).sum() / weight).backward()
        for parameter in model.parameters():
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        norms.append(float(nn.utils.clip_grad_norm_(model.parameters(), CLIP_NORM)))
        optimizer.step()
    return norms
