"""Explore with a trained sequence ranker: draw its output layer's weights per member and hour.

The network up to the output layer stays as trained; what enters that layer, with a 1 for the
bias, is an event's features. What a wide part or a position adds to the logits stays as trained,
too. Each action has a posterior over its row of weights. Its mean is the
trained row, and the events that the ranker was trained on make it narrow where they looked. Rows
that came later move the mean too.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.special import expit
from torch import Tensor, nn

from ml.batches import Batch, SequenceBatches
from ml.features import FloatArray, IntArray
from ml.ranking.bayesian_last_layer import Posterior, PosteriorConfig, session_generator
from ml.ranking.sequence_ranker.model import Context, SequenceRanker
from ml.ranking.sequence_ranker.score import of_targets

# Shapes: N events, K features (the last is 1), A actions, B sequences, L candidates.


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Seen:
    """Hold what a ranker makes of events before the weights that are explored.

    Attributes:
        features: Inputs of the output layer, the last 1; float64 [N, K].
        added: What else the ranker adds to the logits, float64 [N, A].
    """

    features: FloatArray
    added: FloatArray

    def take(self, events: IntArray | slice) -> "Seen":
        """Return some events."""
        return Seen(features=self.features[events], added=self.added[events])


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Explorer:
    """Hold what is known of the output layer's weights, a posterior per action.

    Attributes:
        actions: Ordered action names.
        posteriors: One for each of them.
    """

    actions: tuple[str, ...]
    posteriors: tuple[Posterior, ...]

    @classmethod
    def start(cls, model: SequenceRanker, *, config: PosteriorConfig) -> "Explorer":
        """Return the prior around a ranker's trained output weights.

        Raises:
            ValueError: If the ranker has no such layer, or bends its result.
        """
        output = _output_layer(model)
        weights_AK = torch.cat([output.weight, output.bias[:, None]], dim=1)
        rows = weights_AK.detach().cpu().double().numpy()
        return cls(
            actions=model.spec.actions,
            posteriors=tuple(Posterior.start(row, config=config) for row in rows),
        )

    def after_training_on(self, seen: Seen) -> "Explorer":
        """Return what is known after events that the ranker was trained on: means stay.

        Source: lirank 5.5.
        """
        surer = tuple(
            posterior.surer(seen.features, added_N=seen.added[:, bit])
            for bit, posterior in enumerate(self.posteriors)
        )
        return Explorer(actions=self.actions, posteriors=surer)

    def after_seeing(self, seen: Seen, labels_NA: IntArray) -> "Explorer":
        """Return what is known after events that the ranker has not seen: means move too.

        Raises:
            ValueError: If there is not one column of labels per action.
        """
        if labels_NA.shape != seen.added.shape:
            raise ValueError(f"give each event one label for each of {self.actions}")
        moved = tuple(
            posterior.update_binary(seen.features, labels_NA[:, bit], added_N=seen.added[:, bit])
            for bit, posterior in enumerate(self.posteriors)
        )
        return Explorer(actions=self.actions, posteriors=moved)

    def scores(
        self,
        seen: Seen,
        *,
        members: Sequence[str] | IntArray,
        hours: IntArray,
        width: float = 1.0,
    ) -> FloatArray:
        """Return the probability of each action under its member's draw of the hour, [N, A].

        All events of a member and hour share one draw of every action's weights, so that a
        session is consistent; actions are drawn independently.

        Args:
            seen: The events.
            members: Id of each event's member.
            hours: Hours since 1970 of each event's request, [N].
            width: How far to explore; 0 scores with the means.

        Raises:
            ValueError: If lengths differ.

        Source: lirank 5.5 (Thompson sampling).
        """
        if not len(seen.features) == len(members) == len(hours):
            raise ValueError("give each event one member and one hour")
        samplers = [posterior.sampler() for posterior in self.posteriors]
        names = np.asarray(members).astype(str)
        logits_NA = np.array(seen.added, np.float64)
        for (name, hour), events in _by_session(names, np.asarray(hours)).items():
            noise = session_generator(name, hour=hour)
            weights_AK = [sampler.draw(noise, width=width)[0] for sampler in samplers]
            logits_NA[events] += seen.features[events] @ np.stack(weights_AK, axis=1)
        return expit(logits_NA)

    def ranking(
        self, seen: Seen, *, action: str, member: str, hour: int, width: float = 1.0
    ) -> IntArray:
        """Return the candidates of one request, best drawn score first, [L].

        Args:
            seen: The candidates.
            action: What to rank by.
            member: Id of the member.
            hour: Hours since 1970.
            width: How far to explore.
        """
        count = len(seen.features)
        scores_LA = self.scores(
            seen, members=[member] * count, hours=np.full(count, hour), width=width
        )
        return np.argsort(-scores_LA[:, self.actions.index(action)], kind="stable")


def seen_targets(model: SequenceRanker, batches: SequenceBatches) -> Seen:
    """Return what a ranker makes of every target event, in the order of the data.

    Args:
        model: The trained ranker, left in evaluation mode.
        batches: Batches of the events, of `training.batches_for`.

    Raises:
        ValueError: If the ranker has no such layer, or bends its result.
    """
    width = _output_layer(model).in_features + batches.num_actions
    found = of_targets(
        model, batches, compute=lambda batch: seen_of(model, lambda: model(batch)), width=width
    )
    return split_seen(found, num_actions=batches.num_actions)


def seen_candidates(model: SequenceRanker, candidates: Batch, context: Context) -> Tensor:
    """Return what `split_seen` takes, of candidates, [B, L, K - 1 + A].

    Args:
        model: The trained ranker in evaluation mode.
        candidates: As `SequenceRanker.score_candidates` takes them.
        context: What `context_cache` returned for the same users.

    Raises:
        ValueError: If the ranker has no such layer, or bends its result.
    """
    with torch.inference_mode():
        return seen_of(model, lambda: model.score_candidates(candidates, context))


def seen_of(model: SequenceRanker, run: Callable[[], Tensor]) -> Tensor:
    """Run a ranker; return its output layer's input and what else its logits add, side by side."""
    output = _output_layer(model)
    given: list[Tensor] = []
    hook = output.register_forward_pre_hook(lambda _, inputs: given.append(inputs[0]))
    try:
        logits = run()
    finally:
        hook.remove()
    return torch.cat([given[-1], logits - output(given[-1])], dim=-1)


def split_seen(rows: FloatArray, *, num_actions: int) -> Seen:
    """Return the events of rows that hold features and, last, what is added for each action."""
    features, added = np.split(np.asarray(rows, np.float64), [-num_actions], axis=1)
    return Seen(features=np.pad(features, [(0, 0), (0, 1)], constant_values=1.0), added=added)


def _output_layer(model: SequenceRanker) -> nn.Linear:
    """Return the layer whose result, plus what is added to it, is the logits.

    Raises:
        ValueError: If there is none, or its result is bent afterwards.
    """
    output = getattr(model.head, "output", None)
    if not isinstance(output, nn.Linear) or not isinstance(model.calibration, nn.Identity):
        raise ValueError(
            "exploration draws the weights of one output layer whose result is added up to the "
            "logits; use the head mlp, linear or parallel_dcn, and no isotonic layer"
        )
    return output


def _by_session(names: np.ndarray, hours: IntArray) -> dict[tuple[str, int], IntArray]:
    """Return the places of each member and hour."""
    order = np.lexsort((hours, names))
    names, hours = names[order], hours[order]
    starts = np.flatnonzero(
        np.r_[True, (names[1:] != names[:-1]) | (hours[1:] != hours[:-1])] if len(order) else []
    )
    parts = np.split(order, starts[1:]) if len(order) else []
    return {
        (str(names[start]), int(hours[start])): part
        for start, part in zip(starts, parts, strict=True)
    }
