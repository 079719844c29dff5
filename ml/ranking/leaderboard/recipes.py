"""The recipes of the leaderboard, as one literal list, and the claims that are put to the test.

A recipe names the module that makes its contender, so that its code is known by a hash without
importing it. Adding a recipe changes no other recipe's hash.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

from ml.ranking.contenders import LEARNING_RATES, NUM_TRIALS, Contender
from ml.ranking.leaderboard.cells import Cell


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """Say how a contender is made, and what its trials try.

    Attributes:
        module: Dotted name of a module with a function `contender(**arguments)`.
        trials: What each trial sets, in words; as many for every recipe.
        arguments: Handed to `contender`.
    """

    module: str
    trials: tuple[str, ...]
    arguments: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check that no recipe may try more than another.

        Raises:
            ValueError: If the number of trials is not the common one.
        """
        if len(self.trials) != NUM_TRIALS:
            raise ValueError(
                f"{self.module} has {len(self.trials)} trials: every recipe has {NUM_TRIALS}"
            )

    @property
    def description(self) -> str:
        """Return what belongs to the recipe's state beside its modules."""
        return json.dumps([self.arguments, self.trials], sort_keys=True)

    def contender(self) -> Contender:
        """Import the module and make the contender."""
        return import_module(self.module).contender(**self.arguments)


@dataclass(frozen=True, kw_only=True, slots=True)
class Claim:
    """State that a recipe has the lower NE of the primary action than another.

    Attributes:
        recipe: The one that should be better.
        rival: The other; None is the best classical baseline, chosen by validation.
        source: Where it is claimed.
    """

    recipe: str
    rival: str | None
    source: str = "ranklake"


_BASELINES = "ml.ranking.leaderboard.linear"
_TREES = "ml.ranking.leaderboard.boosted_trees"
_POINTWISE = "ml.ranking.pointwise_ranker.contender"
_SEQUENCE = "ml.ranking.sequence_ranker.contender"
_RATES = tuple(f"learning rate {rate:g}" for rate in LEARNING_RATES)


def _sequence(recipe: str, **arguments: Any) -> Recipe:
    return Recipe(module=_SEQUENCE, arguments={"recipe": recipe, **arguments}, trials=_RATES)


def _pointwise(recipe: str) -> Recipe:
    return Recipe(module=_POINTWISE, arguments={"recipe": recipe}, trials=_RATES)


RECIPES: Mapping[str, Recipe] = {
    "popularity": Recipe(
        module=_BASELINES,
        arguments={"blocks": "popularity"},
        trials=("strength 0.01", "strength 0.1", "strength 1"),
    ),
    "logistic_regression": Recipe(
        module=_BASELINES,
        arguments={"blocks": "all"},
        trials=("strength 0.003", "strength 0.01", "strength 0.1"),
    ),
    "lightgbm": Recipe(
        module=_TREES,
        trials=(
            "learning rate 0.03, 31 leaves",
            "learning rate 0.06, 31 leaves",
            "learning rate 0.06, 127 leaves",
        ),
    ),
    "dcn_v2": _pointwise("dcn_v2"),
    "dcn_v2_low_rank": _pointwise("dcn_v2_low_rank"),
    "din": _pointwise("din"),
    "sasrec": _pointwise("sasrec"),
    "lirank": _pointwise("lirank"),
    "no_action": _sequence("no_action"),
    "interleaved": _sequence("interleaved"),
    "attn_lfa": _sequence("attn_lfa"),
    "attn_mvp": _sequence("attn_mvp"),
    "attn_mvp_without_lfa": _sequence("attn_mvp_without_lfa"),
    "attn_mvp_outcomes_alone": _sequence("attn_mvp_outcomes_alone"),
    "feed_sr": _sequence("feed_sr"),
    "interleaved_siren": _sequence("interleaved", rotation="siren"),
    "attn_lfa_siren": _sequence("attn_lfa", rotation="siren"),
    "attn_mvp_siren": _sequence("attn_mvp", rotation="siren"),
    "attn_mvp_without_lfa_siren": _sequence("attn_mvp_without_lfa", rotation="siren"),
    "feed_sr_siren": _sequence("feed_sr", rotation="siren"),
    "attn_mvp_time_offset": _sequence("attn_mvp", rotation="time_offset"),
    "attn_mvp_isotonic": _sequence("attn_mvp", calibrates_afterwards=True),
    "attn_mvp_isotonic_layer": _sequence("attn_mvp_isotonic_layer"),
    "attn_mvp_wide": _sequence("default"),
}

# The best of these on validation is the rival that every other recipe has to beat on test.
CLASSICAL = ("logistic_regression", "lightgbm")
# Claims beside "beats the best classical baseline", which is put to every other recipe.
_PAPER_MVP = "arXiv 2603.10369"
_PAPER_SIREN = "arXiv 2604.24717"
CLAIMS: tuple[Claim, ...] = (
    Claim(recipe="interleaved", rival="no_action", source=_PAPER_MVP),
    Claim(recipe="attn_lfa", rival="interleaved", source=_PAPER_MVP),
    Claim(recipe="attn_mvp", rival="interleaved", source=_PAPER_MVP),
    Claim(recipe="attn_mvp_without_lfa", rival="interleaved", source=_PAPER_MVP),
    Claim(recipe="attn_mvp", rival="attn_mvp_without_lfa", source=_PAPER_MVP),
    Claim(recipe="attn_mvp", rival="attn_mvp_outcomes_alone"),
    Claim(recipe="attn_mvp_siren", rival="attn_mvp", source=_PAPER_SIREN),
    Claim(recipe="attn_mvp_siren", rival="attn_mvp_time_offset", source=_PAPER_SIREN),
    Claim(recipe="feed_sr", rival="interleaved", source="arXiv 2602.12354"),
    Claim(recipe="attn_mvp_isotonic_layer", rival="attn_mvp", source="arXiv 2402.06859"),
    Claim(recipe="lirank", rival="dcn_v2", source="arXiv 2402.06859"),
    Claim(recipe="attn_mvp_wide", rival="attn_mvp"),
)


def chosen_recipes(names: tuple[str, ...]) -> dict[str, Recipe]:
    """Return the named recipes in the list's order, all without names.

    Raises:
        ValueError: If a name is not in the list.
    """
    if unknown := sorted(set(names) - set(RECIPES)):
        raise ValueError(f"unknown recipe {unknown[0]!r}: choose from {', '.join(RECIPES)}")
    return {name: recipe for name, recipe in RECIPES.items() if not names or name in names}


def contender_of(cell: Cell) -> Contender:
    """Return the contender of a cell's recipe."""
    return chosen_recipes((cell.recipe,))[cell.recipe].contender()
