"""Replicate-and-Quantize on real transformers models, Mixtral- and OLMoE-style."""

from collections.abc import Mapping
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ml.generative.prompt_ranker.loss import answer_loss
from ml.generative.prompt_ranker.model import PromptRanker, PromptRankerConfig, Vocabulary, build
from ml.inference.balanced_experts import (
    BalancedExperts,
    dequantise,
    expert_size,
    instance_of_slot,
    quantise,
)
from ml.inference.expert_plan import LayerPlan, Plan
from ml.inference.expert_statistics import (
    count_tokens,
    leave_one_out_importance,
    wanda_importance,
)
from ml.inference.moe_blocks import StackedExperts, sparse_blocks
from ml.inference.replicate_quantize import (
    apply_plan,
    calibrate,
    expert_bytes,
    load_balanced,
    measure_imbalance,
    plan_model,
    sample_batches,
    save_balanced,
)

Batch = dict[str, Tensor]


def _model(architecture: str = "mixtral", seed: int = 0) -> PromptRanker:
    config = PromptRankerConfig(
        architecture=architecture, hidden_size=32,
        num_experts=4, expert_size=48,
    )  # fmt: skip
    vocabulary = Vocabulary(size=64, yes_id=1, no_id=2)
    model = build(config, vocabulary=vocabulary, seed=seed).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():  # decisive routing, and experts that matter
        for block in sparse_blocks(model):
            block.gate.weight.copy_(torch.randn(block.gate.weight.shape, generator=generator))
            for weight in block.experts.parameters():
                weight.copy_(torch.randn(weight.shape, generator=generator) * 0.3)
    return model


def _batches(count: int = 4, seed: int = 0) -> list[Batch]:
    generator = torch.Generator().manual_seed(seed)
    batches = []
    for _ in range(count):
        lengths = torch.randint(20, 41, (32,), generator=generator)
        mask = (torch.arange(40) < lengths[:, None]).long()
        ids = torch.randint(3, 64, (32, 40), generator=generator) * mask
        labels = torch.randint(0, 2, (32,), generator=generator)
        batches.append({"input_ids": ids, "attention_mask": mask, "labels": labels})
    return batches


def _loss(model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
    return answer_loss(model(batch), batch["labels"])


@pytest.mark.parametrize("architecture", ["mixtral", "olmoe"])
def test_lossless_plan_gives_the_bits_of_the_base_model(architecture: str) -> None:
    model, batch = _model(architecture), _batches(1)[0]
    plan = Plan(layers=(LayerPlan(replicas=(3, 1, 2, 1), quantised=(1,)),) * 2)
    with torch.no_grad():
        assert torch.equal(apply_plan(model, plan, lossless=True)(batch), model(batch))


def test_real_plan_keeps_the_memory_and_moves_the_answers_only_a_little() -> None:
    model, batches = _model(), _batches()
    balanced = apply_plan(model, plan_model(calibrate(model, batches[:2])))
    assert expert_bytes(balanced) <= expert_bytes(model)
    with torch.no_grad():
        before, after = model(batches[3]), balanced(batches[3])
    assert not torch.equal(before, after)
    assert (after - before).abs().max() < 0.1 * before.abs().max()


def test_memory_counts_every_stored_byte() -> None:
    model = _model()
    plan = Plan(layers=(LayerPlan(replicas=(2, 1, 1, 1), quantised=(3,)),) * 2)
    stored = 0
    for block in sparse_blocks(apply_plan(model, plan)):
        for name in ("gate_up", "gate_up_int8", "gate_up_scale", "down", "down_int8", "down_scale"):
            tensor = getattr(block.experts, name)
            stored += tensor.numel() * tensor.element_size()
    size = expert_size(sparse_blocks(model)[0].experts)
    assert stored == expert_bytes(apply_plan(model, plan))
    assert stored == 2 * (3 * size.full_bytes + 2 * size.quantised_bytes)
    assert size.full_bytes == 4 * (96 * 32 + 32 * 48)
    assert size.quantised_bytes == (96 * 32 + 32 * 48) + 4 * (96 + 32)


def test_imbalance_falls_on_traffic_that_was_not_calibrated_on() -> None:
    model = _model()
    calibration = calibrate(model, _batches(seed=1))
    held_out = _batches(seed=2)
    before = measure_imbalance(model, held_out)
    after = measure_imbalance(apply_plan(model, plan_model(calibration)), held_out)
    assert after.mean < before.mean
    assert after.per_batch_mean < before.per_batch_mean


def test_original_is_untouched_and_a_balanced_model_is_refused() -> None:
    model, batch = _model(), _batches(1)[0]
    with torch.no_grad():
        before = model(batch)
        balanced = apply_plan(model, plan_model(calibrate(model, [batch])))
        assert torch.equal(model(batch), before)
    with pytest.raises(ValueError, match="balanced already"):
        apply_plan(balanced, plan_model(calibrate(model, [batch])))
    with pytest.raises(ValueError, match="sparse layers"):
        apply_plan(model, Plan(layers=(LayerPlan(replicas=(1,) * 4, quantised=()),)))


def test_counts_leave_out_padding_and_add_up_to_tokens_times_top_k() -> None:
    model, batches = _model(), _batches()
    counts = count_tokens(model, batches)
    real = [int(batch["attention_mask"].sum()) for batch in batches]
    assert counts.shape == (4, 2, 4)
    assert counts.dtype == np.int64
    assert (counts.sum(axis=2) == 2 * np.array(real)[:, None]).all()
    longer = {
        name: torch.nn.functional.pad(batches[0][name], (0, 9))
        for name in ("input_ids", "attention_mask")
    }
    assert (count_tokens(model, [longer])[0] == counts[0]).all()


def test_slots_of_an_expert_go_to_its_instances_in_turn() -> None:
    chosen = torch.tensor([[0, 2], [0, 1], [2, 0], [0, 1]])
    instance = instance_of_slot(chosen, torch.tensor([3, 1, 2]))
    assert instance.tolist() == [0, 4, 1, 3, 5, 2, 0, 3]


def test_instance_loads_differ_by_at_most_one() -> None:
    generator = torch.Generator().manual_seed(0)
    chosen = torch.rand(500, 4, generator=generator).argsort(dim=1)[:, :2]
    instance = instance_of_slot(chosen, torch.tensor([3, 1, 2, 1]))
    loads = torch.bincount(instance, minlength=7)
    assert int(loads.sum()) == 1000
    assert loads[:3].max() - loads[:3].min() <= 1
    assert loads[4:6].max() - loads[4:6].min() <= 1


def test_int8_error_is_at_most_half_a_step_per_output_channel() -> None:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(3, 20, 30, generator=generator)
    weight[1, 4] = 0
    packed = quantise(weight)
    step = weight.abs().amax(dim=-1, keepdim=True) / 127
    assert packed.values.dtype == torch.int8
    assert packed.scales.shape == (3, 20, 1)
    assert ((dequantise(packed) - weight).abs() <= step / 2 + 1e-6).all()
    assert torch.equal(quantise(dequantise(packed)).values, packed.values)


def test_both_scores_find_the_planted_unimportant_experts() -> None:
    model = _model()
    with torch.no_grad():
        for layer, block in enumerate(sparse_blocks(model)):
            for weight in block.experts.parameters():
                weight[layer + 1] *= 0.01
    batches = _batches(2)
    wanda = wanda_importance(model, batches)
    assert wanda.argmin(axis=1).tolist() == [1, 2]
    loo = np.abs(leave_one_out_importance(model, batches, loss=_loss))
    assert loo.argmin(axis=1).tolist() == [1, 2]


def test_wanda_does_not_grow_with_the_load() -> None:
    model, batch = _model(), _batches(1)[0]
    assert np.allclose(wanda_importance(model, [batch] * 3), wanda_importance(model, [batch]))


def test_wanda_equals_a_plain_loop() -> None:
    model, batch = _model(), _batches(1)[0]
    block = sparse_blocks(model)[0]
    seen: list[tuple[Tensor, Tensor]] = []
    handle = block.experts.register_forward_pre_hook(lambda _, args: seen.append(args[:2]))
    with torch.no_grad():
        model(batch)
    handle.remove()
    hidden, chosen = seen[0]
    rows = [
        row
        for row, experts, real in zip(hidden, chosen, batch["attention_mask"].ravel(), strict=True)
        if real and 2 in experts
    ]
    stacked = cast(StackedExperts, block.experts)
    weight = stacked.gate_up_proj[2].detach()
    inputs = torch.stack(rows)
    gate, up = (inputs @ weight.T).chunk(2, dim=1)
    inner = torch.nn.functional.silu(gate) * up
    rms = inputs.square().mean(dim=0).sqrt()
    inner_rms = inner.square().mean(dim=0).sqrt()
    gate_weight, up_weight = weight.abs().chunk(2)
    down = stacked.down_proj[2].detach().abs()
    expected = (
        (gate_weight * rms).mean() + (up_weight * rms).mean() + (down * inner_rms).mean()
    ) / 3
    assert wanda_importance(model, [batch])[0, 2] == pytest.approx(float(expected), rel=1e-5)


def test_saved_experts_give_the_same_scores(tmp_path: Path) -> None:
    model, batches = _model(), _batches(2)
    balanced = apply_plan(model, plan_model(calibrate(model, batches[:1])))
    save_balanced(balanced, tmp_path)
    with torch.no_grad():
        assert torch.equal(load_balanced(model, tmp_path)(batches[1]), balanced(batches[1]))
    assert {path.suffix for path in tmp_path.iterdir()} == {".safetensors", ".json"}


def test_a_folder_of_another_model_or_with_a_spare_tensor_is_refused(tmp_path: Path) -> None:
    model, batches = _model(), _batches(1)
    save_balanced(apply_plan(model, plan_model(calibrate(model, batches))), tmp_path)
    tensors = load_file(tmp_path / "experts.safetensors")
    save_file({**tensors, "spare": torch.zeros(1)}, tmp_path / "experts.safetensors")
    with pytest.raises(ValueError, match="do not fit"):
        load_balanced(model, tmp_path)


def test_a_tenth_of_stationary_traffic_finds_the_heaviest_experts() -> None:
    agreements = []
    for seed in range(10):
        model, batches = _model(seed=seed), _batches(20, seed=seed)
        sample = sample_batches(batches, fraction=0.1, seed=seed)
        assert len(sample) == 2
        whole = count_tokens(model, batches).sum(axis=0).argmax(axis=1)
        agreements += (count_tokens(model, sample).sum(axis=0).argmax(axis=1) == whole).tolist()
    assert np.mean(agreements) >= 0.95


def test_dense_model_is_refused() -> None:
    with pytest.raises(ValueError, match="no sparse expert layer"):
        sparse_blocks(nn.Linear(2, 2))


def test_balanced_module_refuses_a_plan_of_another_size() -> None:
    block = sparse_blocks(_model())[0]
    with pytest.raises(ValueError, match="plan of 3 experts"):
        BalancedExperts(block.experts, LayerPlan(replicas=(1, 1, 1), quantised=()))
