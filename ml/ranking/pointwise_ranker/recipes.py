"""Named, complete configurations of the point-wise rankers.

Few epochs: such rankers fit the train split's chance in the third, and a learning rate that falls
within two does better on validation than one that is stopped while it is high.
"""

from dataclasses import replace

from ml.ranking.pointwise_ranker.config import (
    PointBatchConfig,
    PointwiseConfig,
    PointwiseRecipe,
)
from ml.training.config import TrainConfig
from ml.training.hdet.controller import HdetConfig


def dcn_v2() -> PointwiseRecipe:
    """Return full cross layers beside a network, on the candidate, its context and the numbers.

    Source: Wang et al. 2021 (arXiv 2008.13535); lirank 5.2.
    """
    return PointwiseRecipe(
        model=PointwiseConfig(interaction="dcn_v2"),
        batches=PointBatchConfig(targets=512, history_length=50, item_dropout_fraction=0.1),
        training=TrainConfig(
            epochs=2,
            learning_rate=3e-3,
            weight_decay=0.02,
            patience=2,
            precision="float32",
            hdet=HdetConfig(sync_steps=50, auto_warmup_steps=100),
        ),
    )


def dcn_v2_low_rank() -> PointwiseRecipe:
    """Return `dcn_v2` with maps of a quarter of the features' width."""
    recipe = dcn_v2()
    return replace(recipe, model=replace(recipe.model, interaction="dcn_v2_low_rank"))


def din() -> PointwiseRecipe:
    """Return target attention over the last events, and a network.

    Its attention learns later than its other parts, so it gets more epochs to choose from.

    Source: Zhou et al. 2018 (arXiv 1706.06978).
    """
    recipe = dcn_v2()
    model = PointwiseConfig(history="target_attention", interaction="mlp")
    return replace(recipe, model=model, training=replace(recipe.training, epochs=4))


def sasrec() -> PointwiseRecipe:
    """Return SASRec as a ranker: its inner product, beside linear terms of all other features.

    Source: Kang and McAuley 2018 (arXiv 1808.09781).
    """
    recipe = dcn_v2()
    return replace(recipe, model=PointwiseConfig(history="sasrec", interaction="linear"))


def lirank() -> PointwiseRecipe:
    """Return residual crosses, gated layers, TransAct history and the isotonic layer.

    The learning rate rises for half of the steps, without which the crosses diverge.

    Source: lirank 5.1, 5.2, 5.3, 5.4 and 5.9 (arXiv 2402.06859).
    """
    recipe = dcn_v2()
    model = PointwiseConfig(
        history="transact",
        interaction="residual_dcn",
        calibration="isotonic_layer",
        item_width=16,
        dense_gating=True,
    )
    training = replace(recipe.training, warmup_fraction=0.5)
    return replace(recipe, model=model, training=training)


RECIPES = {
    "dcn_v2": dcn_v2,
    "dcn_v2_low_rank": dcn_v2_low_rank,
    "din": din,
    "sasrec": sasrec,
    "lirank": lirank,
}


def recipe(name: str) -> PointwiseRecipe:
    """Return a recipe by name.

    Raises:
        ValueError: If there is none of this name.
    """
    if name not in RECIPES:
        raise ValueError(f"no point-wise recipe {name!r}; choose one of {sorted(RECIPES)}")
    return RECIPES[name]()
