"""Do percentile tokens tell the model how popular an item is, where raw counts do not?

A planted world: counts grow with an item's age, tenfold per age bucket, and members engage more
often with the items that are popular for their age. Half of the items are never trained on, so
that their score can come from the prompt alone.

Source: LLM dual encoder for feed retrieval, sections 5.3 and 5.8 of the stored notes.
"""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.stats import spearmanr

from ml.retrieval.dual_encoder.loss import info_nce
from ml.retrieval.dual_encoder.model import DualEncoderConfig, build
from ml.tokenizers.prompt_tokenizer import TokenizerConfig, tokenize, train_tokenizer

pytestmark = pytest.mark.usefixtures("one_thread")
MEMBER = "<ST_M0> what next <ST_M1> member"
AGES = ("new", "days", "week", "month", "old")
ITEMS, BATCH, STEPS = 400, 64, 80
SMALL = DualEncoderConfig(hidden_size=16, num_layers=1, num_heads=2, intermediate_size=32)


def _raw(age: int, views: int, _: int) -> str:
    return f"<ST_P1> post <ST_P3> {views} views <ST_P5> {AGES[age]}"


def _percentile(age: int, _: int, rank: int) -> str:
    return f"<ST_P1> post <ST_P3> <ST_pct> <ST_{rank}> <ST_/pct> views <ST_P5> {AGES[age]}"


def _world(seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Return age bucket, views, and the views' percentile in the bucket, 1 to 100."""
    spread = np.random.default_rng(seed).normal(0.0, 1.0, (len(AGES), ITEMS // len(AGES)))
    scale = 10.0 ** np.arange(1, 1 + len(AGES))[:, None]
    ranks = np.ceil(100 * (spread.argsort(axis=1).argsort(axis=1) + 1) / spread.shape[1])
    views = np.maximum(np.round(np.exp(spread) * scale), 1)
    ages = np.broadcast_to(np.arange(len(AGES))[:, None], spread.shape)
    return ages.ravel(), views.ravel().astype(np.int64), ranks.ravel().astype(np.int64)


def _unseen_correlation(say: Callable[[int, int, int], str], seed: int) -> float:
    """Train on half of the items; return how well cosine ranks the other half by popularity."""
    ages, views, ranks = _world(seed)
    prompts = [say(*map(int, row)) for row in zip(ages, views, ranks, strict=True)]
    generator = np.random.default_rng(seed + 1)
    trained, unseen = np.split(generator.permutation(ITEMS), 2)
    tokenizer = train_tokenizer(
        [MEMBER, *(prompts[i] for i in trained)], config=TokenizerConfig(vocabulary_size=512)
    )
    items, member = (tokenize(tokenizer, p, max_tokens=32) for p in (prompts, [MEMBER]))
    ids, lengths = torch.from_numpy(items.ids), torch.from_numpy(items.lengths)
    one = (torch.from_numpy(member.ids), torch.from_numpy(member.lengths))
    model = build(SMALL, vocabulary_size=len(tokenizer), seed=seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    share = ranks[trained] ** 2.0
    for _ in range(STEPS):
        positives = generator.choice(trained, BATCH, p=share / share.sum())
        columns = np.concatenate([positives, generator.choice(trained, BATCH)])
        scores_C = model.embed(*one)[0] @ model.embed(ids[columns], lengths[columns]).T / 0.1
        same_BC = torch.from_numpy(columns[None, :] == positives[:, None])
        loss = info_nce(scores_C.expand(BATCH, -1), torch.arange(BATCH), same_BC)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        cosine = model.embed(ids[unseen], lengths[unseen]) @ model.embed(*one)[0]
    return float(np.asarray(spearmanr(cosine.numpy(), ranks[unseen]))[0])


def test_percentile_tokens_carry_popularity_to_unseen_items_and_raw_counts_much_less() -> None:
    tokens = [_unseen_correlation(_percentile, seed) for seed in range(3)]
    digits = [_unseen_correlation(_raw, seed) for seed in range(3)]
    assert min(tokens) > 0.8
    assert np.mean(tokens) > np.mean(digits) + 0.3
    assert min(tokens) > max(digits)
