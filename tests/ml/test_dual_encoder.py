"""The dual encoder: pooling, loss, batches and training."""

import multiprocessing
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ml.batches import Shard
from ml.retrieval.dual_encoder import fit as fitting
from ml.retrieval.dual_encoder.batches import ItemPrompts, RetrievalBatches
from ml.retrieval.dual_encoder.inputs import RetrieverInputs, prepare_inputs
from ml.retrieval.dual_encoder.loss import ContrastiveConfig, contrastive_loss, info_nce
from ml.retrieval.dual_encoder.model import (
    DualEncoder,
    DualEncoderConfig,
    build,
    load,
    save,
)
from ml.retrieval.dual_encoder.recipes import RetrieverConfig, recipe
from ml.retrieval.dual_encoder.training import catalogue_index, embed_rows
from ml.tokenizers.prompt_tokenizer import TokenRows
from tests.ml.gloo_contrastive import global_case, worker_loss
from tests.ml.prompt_examples import NUM_ITEMS, chosen, item_columns, member_columns

pytestmark = pytest.mark.usefixtures("one_thread")
SMALL = DualEncoderConfig(hidden_size=16, num_layers=2, num_heads=2, intermediate_size=32)


@pytest.fixture(scope="module")
def config() -> RetrieverConfig:
    return replace(recipe("toy"), encoder=None, vocabulary_size=512)


@pytest.fixture(scope="module")
def inputs(config: RetrieverConfig) -> RetrieverInputs:
    columns = member_columns(1200)
    positives = chosen(columns, columns["is_positive"])
    return prepare_inputs(positives, item_columns(), config=config)


def _model(seed: int = 0) -> DualEncoder:
    return build(SMALL, vocabulary_size=40, seed=seed)


def _prompts(seed: int = 0, rows: int = 5, width: int = 9) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(1, 40, (rows, width), generator=generator)
    return ids, torch.randint(2, width + 1, (rows,), generator=generator)


def test_info_nce_matches_the_oracle() -> None:
    logits = torch.tensor([[0.8, 0.2, 0.1]], dtype=torch.float64) / 0.1
    assert float(info_nce(logits, torch.tensor([0]))) == pytest.approx(0.0033849, abs=5e-8)


def test_pooling_is_the_mean_over_all_real_tokens_at_unit_norm() -> None:
    model = _model()
    ids, lengths = _prompts()
    with torch.no_grad():
        embedded = model.embed(ids, lengths)
        for row, length in enumerate(lengths.tolist()):
            states = model.language_model(input_ids=ids[row : row + 1, :length]).last_hidden_state
            mean = states[0].mean(dim=0)
            assert torch.allclose(embedded[row], mean / mean.norm(), atol=1e-5)


def test_padding_never_changes_an_embedding() -> None:
    model = _model()
    ids, lengths = _prompts()
    other = torch.nn.functional.pad(ids, (0, 6), value=3)
    other[torch.arange(15) >= lengths[:, None]] = 7
    with torch.no_grad():
        assert torch.allclose(model.embed(ids, lengths), model.embed(other, lengths), atol=1e-6)


def test_a_prefix_embeds_like_the_prompt_cut_there() -> None:
    model = _model()
    ids, _ = _prompts(rows=2)
    rows, ends = torch.tensor([0, 0, 1]), torch.tensor([2, 7, 9])
    with torch.no_grad():
        prefixes = model.embed_prefixes(ids, rows, ends)
        for query, (row, end) in enumerate(zip(rows.tolist(), ends.tolist(), strict=True)):
            alone = model.embed(ids[row : row + 1, :end], torch.tensor([end]))
            assert torch.allclose(prefixes[query], alone[0], atol=1e-5)


def test_gradient_reaches_every_parameter() -> None:
    model = _model()
    ids, lengths = _prompts()
    weights = torch.randn(16, generator=torch.Generator().manual_seed(1))
    (model.embed(ids, lengths) @ weights).sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_saved_model_scores_the_same_bits(tmp_path: Path) -> None:
    model = _model(seed=3)
    save(model, tmp_path / "model")
    ids, lengths = _prompts()
    with torch.no_grad():
        assert torch.equal(load(tmp_path / "model").embed(ids, lengths), model.embed(ids, lengths))


def test_loading_refuses_a_missing_or_a_spare_weight(tmp_path: Path) -> None:
    save(_model(), tmp_path / "model")
    path = tmp_path / "model" / "model.safetensors"
    weights = load_file(path)
    save_file({**weights, "spare": torch.zeros(1)}, path)
    with pytest.raises(RuntimeError, match="spare"):
        load(tmp_path / "model")
    save_file(dict(list(weights.items())[1:]), path)
    with pytest.raises(RuntimeError, match="Missing key"):
        load(tmp_path / "model")


def test_a_local_checkpoint_is_used_and_grows_to_the_vocabulary(tmp_path: Path) -> None:
    source = _model(seed=5)
    source.language_model.save_pretrained(tmp_path)
    loaded = build(replace(SMALL, checkpoint=str(tmp_path)), vocabulary_size=50, seed=0)
    table = cast(nn.Embedding, loaded.language_model.get_input_embeddings()).weight
    assert table.shape == (50, 16)
    before = cast(nn.Embedding, source.language_model.get_input_embeddings()).weight
    assert torch.equal(table[:40], before)


def test_a_checkpoint_that_is_not_here_is_one_clear_error(tmp_path: Path) -> None:
    missing = replace(SMALL, checkpoint=str(tmp_path / "nothing"))
    with pytest.raises(FileNotFoundError, match="nothing"):
        build(missing, vocabulary_size=40, seed=0)


def _loss_case() -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    queries = torch.nn.functional.normalize(torch.randn(3, 4, generator=generator), dim=1)
    items = torch.nn.functional.normalize(torch.randn(5, 4, generator=generator), dim=1)
    batch = {
        "candidate_rows": torch.tensor([2, 3, 5, 8, 9]),
        "candidate_items": torch.tensor([10, 11, 12, 10, 14]),  # rows 2 and 8: one item, two days
        "candidate_log_q": torch.log(torch.tensor([0.5, 0.1, 0.9, 0.3, 0.2])),
        "target": torch.tensor([0, 1, 4]),
        "query_rows": torch.tensor([0, 1, 1]),
        "positives": torch.tensor([[10, 0], [11, 14]]),
    }
    return queries, items, batch


@pytest.mark.parametrize("use_log_q", [True, False])
def test_loss_equals_a_plain_loop_with_masks(use_log_q: bool) -> None:
    queries, items, batch = _loss_case()
    negatives = {0: [1, 2, 4], 1: [0, 2, 3], 2: [0, 2, 3]}
    total = 0.0
    for query, others in negatives.items():
        target = int(batch["target"][query])
        scores = (items @ queries[query]) / 0.1
        if use_log_q:
            scores = scores - batch["candidate_log_q"]
        kept = scores[[target, *others]]
        total += float(kept.logsumexp(0) - kept[0])
    config = ContrastiveConfig(temperature=0.1, use_log_q=use_log_q)
    loss = contrastive_loss(queries, items, batch, config=config)
    assert float(loss) == pytest.approx(total / 3, rel=1e-5)


def test_log_q_learns_the_distribution_and_not_its_ratio_to_popularity() -> None:
    """With free scores, the optimum over sampled candidates is log p only if corrected."""
    generator = np.random.default_rng(0)
    popularity = np.array([0.5, 0.25, 0.15, 0.1])
    corrected = uncorrected = float("nan")
    for use_log_q, expected in ((True, popularity), (False, None)):
        scores = torch.zeros(4, requires_grad=True)
        optimiser = torch.optim.Adam([scores], lr=0.05)
        log_q = torch.log(torch.from_numpy(1 - (1 - popularity) ** 3)).float()
        for _ in range(1500):
            drawn = generator.choice(4, 3, p=popularity)
            candidates = np.unique(drawn)
            logits = scores[torch.from_numpy(candidates)].expand(3, -1)
            if use_log_q:
                logits = logits - log_q[torch.from_numpy(candidates)]
            loss = info_nce(logits, torch.from_numpy(np.searchsorted(candidates, drawn)))
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        learned = torch.softmax(scores.detach(), dim=0).numpy()
        if expected is not None:
            corrected = np.abs(learned - expected).max()
        else:
            uncorrected = np.abs(learned - popularity).max()
    assert corrected < 0.08 < uncorrected


def test_newest_prompt_of_the_day_or_before_is_used() -> None:
    items = ItemPrompts(
        item=np.array([1, 1, 1, 3]),
        day=np.array([5, 9, 7, 4]),
        tokens=TokenRows(ids=np.zeros((4, 1), np.int32), lengths=np.ones(4, np.int32)),
    )
    asked = [(1, 8), (1, 9), (1, 20), (1, 3), (3, 4), (3, 2), (2, 9), (9, 9), (0, 5)]
    rows = items.rows(np.array([i for i, _ in asked]), np.array([d for _, d in asked]))
    assert rows.tolist() == [2, 1, 1, 0, 3, 3, -1, -1, -1]


def test_batch_holds_positives_history_and_hard_negatives_once(
    inputs: RetrieverInputs, config: RetrieverConfig
) -> None:
    batches = RetrievalBatches(inputs.train, inputs.items, config=config.batches)
    for batch in batches.epoch(0):
        rows = batch["candidate_rows"].numpy()
        assert len(np.unique(rows)) == len(rows)
        assert (inputs.items.item[rows] == batch["candidate_items"].numpy()).all()
        per_member = np.bincount(batch["query_rows"].numpy())
        assert set(per_member.tolist()) == {5}  # the target and four posts of history
        targets = batch["candidate_items"][batch["target"]].numpy()
        last = batch["query_ends"] == batch["member_lengths"].long()[batch["query_rows"]]
        assert int(last.sum()) == len(per_member)
        known = batch["positives"][batch["query_rows"]].numpy()
        assert (targets[:, None] == known).any(axis=1).all()


def test_history_targets_stand_right_after_their_prefix(
    inputs: RetrieverInputs, config: RetrieverConfig
) -> None:
    batches = RetrievalBatches(inputs.train, inputs.items, config=config.batches)
    tokenizer = inputs.tokenizer
    batch = next(iter(batches.epoch(0)))
    seen = 0
    for row, end, target in zip(
        batch["query_rows"].tolist(),
        batch["query_ends"].tolist(),
        batch["target"].tolist(),
        strict=True,
    ):
        if end == int(batch["member_lengths"][row]):
            continue
        rest = str(tokenizer.decode(batch["member_ids"][row, end:].tolist()))
        post = rest.split("<ST_history_post>")[1].replace("<ST_pad>", "").strip()
        asked = tokenizer.decode(batch["item_ids"][target].tolist())
        assert post in asked
        seen += 1
    assert seen == 4 * len(batch["member_ids"])


def test_workers_split_one_global_batch_of_one_stretch_of_time(
    inputs: RetrieverInputs, config: RetrieverConfig
) -> None:
    apart = replace(config.batches, global_candidates=False)
    batches = RetrievalBatches(inputs.train, inputs.items, config=apart)
    whole = list(batches.epoch(1))
    halves = [
        list(batches.epoch(1, shard=Shard(rank=rank, size=2), pooled=True)) for rank in (0, 1)
    ]
    assert len(halves[0]) == len(halves[1]) == len(whole) == batches.num_batches(size=2)
    for left, right, both in zip(*halves, whole, strict=True):
        rows = set(left["candidate_rows"].tolist()) | set(right["candidate_rows"].tolist())
        assert rows == set(both["candidate_rows"].tolist())
        assert len(left["member_ids"]) + len(right["member_ids"]) == len(both["member_ids"])
        log_q = dict(
            zip(both["candidate_rows"].tolist(), both["candidate_log_q"].tolist(), strict=True)
        )
        for row, value in zip(
            left["candidate_rows"].tolist(), left["candidate_log_q"].tolist(), strict=True
        ):
            assert value == pytest.approx(log_q[row])


def test_replicas_that_explore_encode_all_candidates_of_the_global_batch(
    inputs: RetrieverInputs, config: RetrieverConfig
) -> None:
    batches = RetrievalBatches(inputs.train, inputs.items, config=config.batches)
    whole = batches.epoch(1)
    halves = [batches.epoch(1, shard=Shard(rank=rank, size=2)) for rank in (0, 1)]
    for left, right, both in zip(*halves, whole, strict=True):
        for half in (left, right):
            assert torch.equal(half["candidate_rows"], both["candidate_rows"])
            assert torch.equal(half["candidate_log_q"], both["candidate_log_q"])
        targets = torch.cat([left["target"], right["target"]])
        assert torch.equal(targets, both["target"])


@pytest.mark.parametrize("name", ["default", "toy"])
def test_exploring_replicas_do_not_share_embeddings(name: str) -> None:
    recipe_config = recipe(name)
    assert recipe_config.training.hdet.spread_fraction > 0
    with pytest.raises(ValueError, match="equal replicas"):
        replace(recipe_config, loss=replace(recipe_config.loss, gather=True))
    assert recipe("global_batch").loss.gather


def test_epochs_are_repeatable_and_differ(inputs: RetrieverInputs, config: RetrieverConfig) -> None:
    batches = RetrievalBatches(inputs.train, inputs.items, config=config.batches)
    first, again, second = (next(iter(batches.epoch(number))) for number in (0, 0, 1))
    assert torch.equal(first["member_ids"], again["member_ids"])
    assert first["member_ids"].shape != second["member_ids"].shape or not torch.equal(
        first["member_ids"], second["member_ids"]
    )


def test_global_batch_over_two_processes_equals_one_process(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    workers = [
        context.Process(target=worker_loss, args=(rank, str(tmp_path), results)) for rank in (0, 1)
    ]
    for worker in workers:
        worker.start()
    answers = sorted((results.get(timeout=120) for _ in workers), key=lambda answer: answer[0])
    for worker in workers:
        worker.join(timeout=60)
    queries, items, batches = global_case()
    all_rows = torch.cat([batch["candidate_rows"] for batch in batches])
    kept = [0, 1, 2, 3, 5, 6]  # row 5 once
    leaf_queries = torch.cat(queries).requires_grad_()
    leaf_items = torch.cat(items)[kept].clone().requires_grad_()
    rows = all_rows[kept]
    place = {int(row): column for column, row in enumerate(rows)}
    merged = {
        "candidate_rows": rows,
        "candidate_items": torch.cat([b["candidate_items"] for b in batches])[kept],
        "candidate_log_q": torch.cat([b["candidate_log_q"] for b in batches])[kept],
        "target": torch.tensor(
            [place[int(b["candidate_rows"][t])] for b in batches for t in b["target"]]
        ),
        "query_rows": torch.arange(5),
        "positives": torch.cat([b["positives"] for b in batches]),
    }
    loss = contrastive_loss(
        leaf_queries, leaf_items, merged, config=ContrastiveConfig(temperature=0.1)
    )
    (loss * 5).backward()
    losses = [answer[1] for answer in answers]
    assert (3 * losses[0] + 2 * losses[1]) / 5 == pytest.approx(loss.item(), rel=1e-5)
    gradients = torch.cat([torch.tensor(answer[2]) for answer in answers])
    assert leaf_queries.grad is not None
    assert torch.allclose(gradients, leaf_queries.grad, atol=1e-5)
    by_row = torch.zeros(10, 6)
    for answer, batch in zip(answers, batches, strict=True):
        by_row.index_add_(0, batch["candidate_rows"], torch.tensor(answer[3]))
    assert leaf_items.grad is not None
    assert torch.allclose(by_row[rows], leaf_items.grad, atol=1e-5)


def test_overfits_one_batch() -> None:
    """Eight members, eight items, words in common with none: the pairs are learned by heart."""
    model = _model()
    member_ids, member_lengths = _prompts(seed=1, rows=8)
    item_ids, item_lengths = _prompts(seed=2, rows=8)
    batch = {
        "member_ids": member_ids,
        "query_rows": torch.arange(8),
        "query_ends": member_lengths,
        "item_ids": item_ids,
        "item_lengths": item_lengths,
        "candidate_rows": torch.arange(8),
        "candidate_items": torch.arange(1, 9),
        "candidate_log_q": torch.zeros(8),
        "target": torch.arange(7, -1, -1),
        "positives": torch.zeros(8, 1, dtype=torch.int64),
    }
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-2)
    loss = torch.tensor(torch.nan)
    for _ in range(60):
        queries, items = model(batch)
        loss = contrastive_loss(queries, items, batch, config=ContrastiveConfig(temperature=0.1))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    queries, items = model(batch)
    assert loss.item() < 0.05
    assert torch.equal((queries @ items.T).argmax(dim=1), batch["target"])


def test_training_by_the_loop_finds_the_members_topic(
    inputs: RetrieverInputs, config: RetrieverConfig, tmp_path: Path
) -> None:
    longer = replace(config, training=replace(config.training, epochs=3, max_steps=100))
    folder = fitting.prepare_folder(inputs, longer, folder=tmp_path / "run")
    result = fitting.fit(folder, report=lambda metrics, checkpoint: None, prepare=lambda m: m)
    assert result.best["validation_recall_at_10"] > 2 * 10 / NUM_ITEMS
    model = load(result.checkpoint)
    index = catalogue_index(model, inputs.items, day=inputs.catalogue_day)
    assert index.items.shape == (NUM_ITEMS, 32)
    members = embed_rows(model, inputs.validation.tokens)
    best = (members @ index.items.T).argmax(dim=1)
    topic = index.item_index[best].numpy() % 6
    wanted = np.array([history[0] % 6 for history in inputs.validation.history])
    assert (topic == wanted).mean() > 0.6
    with pytest.raises(FileExistsError, match="not empty"):
        fitting.prepare_folder(inputs, longer, folder=tmp_path / "run")


def test_unknown_recipe_is_named() -> None:
    with pytest.raises(ValueError, match="'huge'"):
        recipe("huge")
