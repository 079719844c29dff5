"""The prompt ranker: prompts, answers, loss, training and the engine."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers.models.mixtral.modeling_mixtral import load_balancing_loss_func

from ml.batches import Shard
from ml.generative.prompt_ranker import fit as fitting
from ml.generative.prompt_ranker.batches import RankingBatches, join_prompts
from ml.generative.prompt_ranker.inputs import PromptRankerInputs, prepare_inputs
from ml.generative.prompt_ranker.loss import AnswerLossConfig, answer_loss, ranker_loss
from ml.generative.prompt_ranker.model import (
    PromptRanker,
    PromptRankerConfig,
    Vocabulary,
    build,
    load,
    save,
    yes_probability,
)
from ml.generative.prompt_ranker.recipes import PromptRankerRecipe, recipe
from ml.inference.engine import EngineConfig, score_prompts, traffic_batches
from ml.inference.length_buckets import length_buckets, padded
from ml.metrics import auc
from ml.tokenizers.prompt_tokenizer import TokenRows, token_id
from ml.tokenizers.special_tokens import ANSWER, QUESTION
from tests.ml.prompt_examples import item_columns, member_columns

pytestmark = pytest.mark.usefixtures("one_thread")
VOCABULARY = Vocabulary(size=40, yes_id=1, no_id=2)


@pytest.fixture(scope="module")
def config() -> PromptRankerRecipe:
    return replace(recipe("toy"), encoder=None, vocabulary_size=512)


@pytest.fixture(scope="module")
def inputs(config: PromptRankerRecipe) -> PromptRankerInputs:
    return prepare_inputs(member_columns(1000), item_columns(), config=config)


def _model(architecture: str = "mixtral", seed: int = 0) -> PromptRanker:
    config = PromptRankerConfig(
        architecture=architecture, hidden_size=16, num_heads=2, num_experts=4, expert_size=24
    )
    return build(config, vocabulary=VOCABULARY, seed=seed).eval()


def _rows(count: int = 12, seed: int = 0) -> TokenRows:
    generator = np.random.default_rng(seed)
    lengths = generator.integers(3, 20, count).astype(np.int32)
    ids = generator.integers(3, 40, (count, 20)).astype(np.int32)
    ids[np.arange(20) >= lengths[:, None]] = 0
    return TokenRows(ids=ids, lengths=lengths)


def _batch(seed: int = 0) -> dict[str, Tensor]:
    batch = padded(_rows(seed=seed), np.arange(12))
    return {**batch, "labels": torch.arange(12) % 2}


@pytest.mark.parametrize("architecture", ["mixtral", "olmoe"])
def test_score_is_the_softmax_of_yes_and_no_at_the_last_real_token(architecture: str) -> None:
    model, rows = _model(architecture), _rows()
    scores = score_prompts(model, rows)
    for row, length in enumerate(rows.lengths):
        ids = torch.from_numpy(rows.ids[row : row + 1, :length]).long()
        with torch.no_grad():
            logits = model.language_model(input_ids=ids).logits[0, -1, [1, 2]]
        assert scores[row] == pytest.approx(float(torch.softmax(logits, dim=0)[0]), abs=1e-6)


def test_scores_do_not_depend_on_batching_and_repeat_exactly() -> None:
    model, rows = _model(), _rows(40)
    whole = score_prompts(model, rows)
    tiny = score_prompts(model, rows, config=EngineConfig(max_batch_tokens=1))
    shuffled = np.random.default_rng(0).permutation(40)
    moved = score_prompts(model, TokenRows(ids=rows.ids[shuffled], lengths=rows.lengths[shuffled]))
    assert np.array_equal(score_prompts(model, rows), whole)
    assert np.allclose(tiny, whole, atol=1e-6)
    assert np.allclose(moved, whole[shuffled], atol=1e-6)


def test_buckets_hold_every_row_once_within_the_limit() -> None:
    lengths = np.random.default_rng(0).integers(1, 50, 200).astype(np.int32)
    buckets = list(length_buckets(lengths, max_batch_tokens=120))
    assert sorted(np.concatenate(buckets).tolist()) == list(range(200))
    assert all(lengths[rows].max() * len(rows) <= 120 for rows in buckets)
    with pytest.raises(ValueError, match="max_batch_tokens"):
        list(length_buckets(lengths, max_batch_tokens=0))


def test_traffic_has_the_engines_batches_with_labels() -> None:
    rows, labels = _rows(20), np.arange(20) % 3
    batches = list(traffic_batches(rows, labels, config=EngineConfig(max_batch_tokens=60)))
    assert sum(len(batch["labels"]) for batch in batches) == 20
    assert sum(int(batch["attention_mask"].sum()) for batch in batches) == rows.lengths.sum()


def test_answer_loss_is_the_cross_entropy_of_the_yes_probability() -> None:
    logits = torch.tensor([[2.0, 0.0], [0.5, 1.5]])
    probability = yes_probability(logits)
    expected = -(torch.log(probability[0]) + torch.log(1 - probability[1])) / 2
    assert float(answer_loss(logits, torch.tensor([1, 0]))) == pytest.approx(float(expected))
    assert float(probability[0]) == pytest.approx(1 / (1 + np.exp(-2.0)))


@pytest.mark.parametrize("architecture", ["mixtral", "olmoe"])
def test_router_term_is_added_with_its_weight_over_real_tokens(architecture: str) -> None:
    model, batch = _model(architecture), _batch()
    plain = ranker_loss(model, batch, config=AnswerLossConfig())
    with_term = ranker_loss(model, batch, config=AnswerLossConfig(router_balance=0.5))
    with torch.no_grad():
        output = model.language_model(
            input_ids=batch["input_ids"], output_router_logits=True, use_cache=False
        )
    term = load_balancing_loss_func(output.router_logits, 4, 2, batch["attention_mask"])
    assert float((with_term - plain).detach()) == pytest.approx(0.5 * float(term), rel=1e-4)


@pytest.mark.parametrize("architecture", ["mixtral", "olmoe"])
def test_gradient_reaches_every_parameter(architecture: str) -> None:
    model = _model(architecture).train()
    ranker_loss(model, _batch(), config=AnswerLossConfig(router_balance=0.1)).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_overfits_one_batch() -> None:
    model, batch = _model().train(), _batch()
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-2)
    loss = torch.tensor(torch.nan)
    for _ in range(60):
        loss = ranker_loss(model, batch, config=AnswerLossConfig())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert loss.item() < 0.05


@pytest.mark.parametrize("architecture", ["mixtral", "olmoe"])
def test_saved_model_scores_the_same_bits(architecture: str, tmp_path: Path) -> None:
    model = _model(architecture, seed=3)
    save(model, tmp_path / "model")
    assert np.array_equal(
        score_prompts(load(tmp_path / "model"), _rows()), score_prompts(model, _rows())
    )


def test_loading_refuses_a_spare_weight(tmp_path: Path) -> None:
    save(_model(), tmp_path / "model")
    path = tmp_path / "model" / "model.safetensors"
    save_file({**load_file(path), "spare": torch.zeros(1)}, path)
    with pytest.raises(RuntimeError, match="spare"):
        load(tmp_path / "model")


def test_question_and_item_are_never_cut_by_a_long_history(
    inputs: PromptRankerInputs, config: PromptRankerRecipe
) -> None:
    columns = member_columns(1000)
    columns["prompt"] = [prompt + " <ST_history_post> trail" * 200 for prompt in columns["prompt"]]
    long = prepare_inputs(columns, item_columns(), config=config)
    question = token_id(long.tokenizer, QUESTION)
    answer = token_id(long.tokenizer, ANSWER)
    for examples in (long.train, inputs.train):
        for row, length in zip(examples.tokens.ids[:50], examples.tokens.lengths[:50], strict=True):
            assert row[length - 1] == answer
            assert (row == question).sum() == 1
    decoded = str(long.tokenizer.decode(long.train.tokens.ids[0][: long.train.tokens.lengths[0]]))
    asked = int(long.train.item[0])
    prompt = dict(
        zip(
            zip(item_columns()["item_index"], item_columns()["event_date"], strict=True),
            item_columns()["prompt"],
            strict=True,
        )
    )
    day = next(d for _, d in prompt if d.toordinal() == int(long.train.day[0]))
    words = prompt[asked, day].split("<ST_P2>")[1].strip()
    assert words in decoded.split("<ST_question>")[1]
    assert long.train.tokens.lengths.max() <= 96 + 32 + 2


def test_prompt_does_not_tell_the_label(config: PromptRankerRecipe) -> None:
    columns = member_columns(1000)
    flipped = {**columns, "is_positive": [not label for label in columns["is_positive"]]}
    one, other = (prepare_inputs(c, item_columns(), config=config) for c in (columns, flipped))
    assert np.array_equal(one.train.tokens.ids, other.train.tokens.ids)
    assert (one.train.label + other.train.label == 1).all()


def test_joined_rows_need_as_many_items_as_members() -> None:
    with pytest.raises(ValueError, match="12 member prompts for 5"):
        join_prompts(_rows(12), _rows(5), question_id=3, answer_id=4, pad_id=0)


def test_workers_see_every_example_once_per_epoch(
    inputs: PromptRankerInputs, config: PromptRankerRecipe
) -> None:
    batches = RankingBatches(inputs.train, config=config.batches)
    sizes = [
        [len(batch["labels"]) if batch else 0 for batch in batches.epoch(0, shard=shard)]
        for shard in (Shard(rank=0, size=2), Shard(rank=1, size=2))
    ]
    assert len(sizes[0]) == len(sizes[1]) == batches.num_batches(size=2)
    assert sum(map(sum, sizes)) == len(inputs.train.label)


def test_training_by_the_loop_beats_the_base_rate(
    config: PromptRankerRecipe, tmp_path: Path
) -> None:
    columns = member_columns(1000)
    noise = np.random.default_rng(0).random(1000) < 0.1
    columns["is_positive"] = [
        bool((item % 6 < 3) ^ flipped)
        for item, flipped in zip(columns["item_index"], noise, strict=True)
    ]
    inputs = prepare_inputs(columns, item_columns(), config=config)
    longer = replace(config, training=replace(config.training, epochs=4, patience=4, max_steps=100))
    folder = fitting.prepare_folder(inputs, longer, folder=tmp_path / "run")
    result = fitting.fit(folder, report=lambda metrics, checkpoint: None, prepare=lambda m: m)
    assert result.best["validation_ne"] < 0.8
    scores = score_prompts(load(result.checkpoint), inputs.validation.tokens)
    labels = inputs.validation.label
    assert auc(labels, scores) > 0.8


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architecture": "dense"}, "architecture"),
        ({"experts_per_token": 9}, "experts_per_token"),
        ({"hidden_size": 20}, "hidden_size"),
    ],
)
def test_impossible_sizes_are_errors(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(PromptRankerConfig(), **changes)


def test_unknown_recipe_and_equal_answers_are_errors() -> None:
    with pytest.raises(ValueError, match="'huge'"):
        recipe("huge")
    with pytest.raises(ValueError, match="two tokens"):
        Vocabulary(size=4, yes_id=1, no_id=1)
