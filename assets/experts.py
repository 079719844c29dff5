"""Plan and apply Replicate-and-Quantize on the registered prompt ranker, with its real traffic."""

import shutil
from typing import Any

from assets.model_data import PROMPT_TABLES, PromptPairs, pinned, ranking_pairs
from infra.input_examples import prompt_example
from infra.platform import Platform
from infra.registry import ModelCard, ModelVersion, TrainingRun

_CALIBRATION_FRACTION = 0.1
_BATCH_TOKENS = 4096
# The default decoder sends each token to two experts: two of a layer can be heaviest at once.
_NUM_REPLICAS = 2


def plan_experts(platform: Platform) -> dict[str, float]:
    """Calibrate on a tenth of the validation traffic and write the plan beside its evidence."""
    from ml.generative.prompt_ranker.serving import load_scorer
    from ml.inference.engine import EngineConfig, traffic_batches
    from ml.inference.expert_plan import PlanConfig
    from ml.inference.replicate_quantize import (
        calibrate,
        calibration_json,
        plan_model,
        sample_batches,
    )

    scorer = load_scorer(platform.registry().folder("prompt_ranker", alias="candidate"))
    pairs = ranking_pairs(pinned(platform, PROMPT_TABLES), split="validation")
    config = EngineConfig(max_batch_tokens=_BATCH_TOKENS)
    batches = list(traffic_batches(scorer.rows(pairs.members, pairs.items), config=config))
    calibration = calibrate(scorer.model, sample_batches(batches, fraction=_CALIBRATION_FRACTION))
    plan = plan_model(calibration, config=PlanConfig(num_replicas=_NUM_REPLICAS))
    folder = platform.settings().models / "expert_plan"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "plan.json").write_text(plan.to_json())
    (folder / "calibration.json").write_text(calibration_json(calibration))
    return {
        "layers": len(plan.layers),
        "replicas": sum(sum(layer.replicas) - len(layer.replicas) for layer in plan.layers),
        "quantised": sum(len(layer.quantised) for layer in plan.layers),
        "calibration_tokens": int(calibration.counts[0].sum()),
    }


def optimise_experts(platform: Platform) -> tuple[dict[str, Any], ModelVersion]:
    """Apply the plan, measure both models on the test traffic, register the optimised one."""
    from ml.generative.prompt_ranker.serving import BALANCED_FOLDER, BASE_FOLDER, load_scorer
    from ml.inference.engine import EngineConfig, score_prompts, traffic_batches
    from ml.inference.expert_plan import Plan
    from ml.inference.optimisation import compare_models, optimisation_headline
    from ml.inference.replicate_quantize import apply_plan, save_balanced

    models = platform.settings().models
    base = platform.registry().folder("prompt_ranker", alias="candidate")
    scorer = load_scorer(base)
    plan = Plan.from_json((models / "expert_plan" / "plan.json").read_text())
    balanced = apply_plan(scorer.model, plan)
    pairs = ranking_pairs(pinned(platform, PROMPT_TABLES), split="test")
    rows = scorer.rows(pairs.members, pairs.items)
    config = EngineConfig(max_batch_tokens=_BATCH_TOKENS)
    traffic = list(traffic_batches(rows, config=config))
    result = compare_models(scorer.model, balanced, plan, traffic)
    before, after = (score_prompts(each, rows, config=config) for each in (scorer.model, balanced))
    result["headline"] = optimisation_headline(result, pairs.labels, before, after)
    target = models / "optimized_prompt_ranker"
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(base, target / BASE_FOLDER, ignore=shutil.ignore_patterns("serving.json"))
    save_balanced(balanced, target / BALANCED_FOLDER)
    return result, _register(platform, result, pairs)


def _register(platform: Platform, result: dict[str, Any], pairs: PromptPairs) -> ModelVersion:
    registry = platform.registry()
    figures = {name: float(value) for name, value in result["headline"].items()}
    source = registry.version("prompt_ranker", alias="candidate")
    run_id = registry.log_training(
        TrainingRun(
            name="optimized_prompt_ranker",
            config={"prompt_ranker_version": source.version},
            metrics=figures,
            data_versions=registry.tables_of(source),  # its weights come from these
            tags={"source": platform.manifest().source},
        )
    )
    card = ModelCard(
        name="optimized_prompt_ranker",
        kind="optimized_prompt_ranker",
        input_example=prompt_example(pairs.members, pairs.items),
        metrics=figures,
        tags={"prompt_ranker_version": str(source.version)},
    )
    folder = platform.settings().models / "optimized_prompt_ranker"
    return registry.register(folder, card, run_id=run_id)
