"""Explore with a trained sequence ranker: draw its output layer's weights per member and hour.

The network up to the output layer stays as trained; what enters that layer, with a 1 for the
bias, is an event's features. Each action has a posterior over its row of weights. Its mean is the
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
            ValueError: If the ranker's logits are no linear function of one layer's input.
        """
        output = _output_layer(model)
        weights_AK = torch.cat([output.weight, output.bias[:, None]], dim=1)
        rows = weights_AK.detach().cpu().double().numpy()
        return cls(
            actions=model.spec.actions,
            posteriors=tuple(Posterior.start(row, config=config) for row in rows),
        )

    def after_training_on(self, features_NK: FloatArray) -> "Explorer":
        """Return what is known after events that the ranker was trained on: means stay.

        Source: lirank 5.5.
        """
        surer = tuple(posterior.surer(features_NK) for posterior in self.posteriors)
        return Explorer(actions=self.actions, posteriors=surer)

    def after_seeing(self, features_NK: FloatArray, labels_NA: IntArray) -> "Explorer":
        """Return what is known after events that the ranker has not seen: means move too.

        Raises:
            ValueError: If there is not one column of labels per action.
        """
        if labels_NA.shape != (len(features_NK), len(self.actions)):
            raise ValueError(f"give each event one label for each of {self.actions}")
        moved = tuple(
            posterior.update_binary(features_NK, labels_NA[:, bit])
            for bit, posterior in enumerate(self.posteriors)
        )
        return Explorer(actions=self.actions, posteriors=moved)

    def scores(
        self,
        features_NK: FloatArray,
        *,
        members: Sequence[str] | IntArray,
        hours: IntArray,
        width: float = 1.0,
    ) -> FloatArray:
        """Return the probability of each action under its member's draw of the hour, [N, A].

        All events of a member and hour share one draw of every action's weights, so that a
        session is consistent; actions are drawn independently.

        Args:
            features_NK: Inputs of the output layer.
            members: Id of each event's member.
            hours: Hours since 1970 of each event's request, [N].
            width: How far to explore; 0 scores with the means.

        Raises:
            ValueError: If lengths differ.

        Source: lirank 5.5 (Thompson sampling).
        """
        if not len(features_NK) == len(members) == len(hours):
            raise ValueError("give each event one member and one hour")
        samplers = [posterior.sampler() for posterior in self.posteriors]
        names = np.asarray(members).astype(str)
        drawn = np.empty((len(features_NK), len(self.actions)))
        for (name, hour), events in _by_session(names, np.asarray(hours)).items():
            noise = session_generator(name, hour=hour)
            weights_AK = [sampler.draw(noise, width=width)[0] for sampler in samplers]
            drawn[events] = features_NK[events] @ np.stack(weights_AK, axis=1)
        return expit(drawn)

    def ranking(
        self, features_LK: FloatArray, *, action: str, member: str, hour: int, width: float = 1.0
    ) -> IntArray:
        """Return the candidates of one request, best drawn score first, [L].

        Args:
            features_LK: Inputs of the output layer, of `candidate_features`.
            action: What to rank by.
            member: Id of the member.
            hour: Hours since 1970.
            width: How far to explore.
        """
        count = len(features_LK)
        scores_LA = self.scores(
            features_LK, members=[member] * count, hours=np.full(count, hour), width=width
        )
        return np.argsort(-scores_LA[:, self.actions.index(action)], kind="stable")


def target_features(model: SequenceRanker, batches: SequenceBatches) -> FloatArray:
    """Return the output layer's input, then a 1, of every target event, float64 [T, K].

    Args:
        model: The trained ranker, left in evaluation mode.
        batches: Batches of the events, of `training.batches_for`.

    Raises:
        ValueError: If the ranker's logits are no linear function of one layer's input.
    """
    width = _output_layer(model).in_features
    found = of_targets(
        model, batches, compute=lambda batch: _seen(model, lambda: model(batch)), width=width
    )
    return _with_one(found)


def candidate_features(model: SequenceRanker, candidates: Batch, context: Context) -> FloatArray:
    """Return the output layer's input, then a 1, of candidates, float64 [B, L, K].

    Args:
        model: The trained ranker in evaluation mode.
        candidates: As `SequenceRanker.score_candidates` takes them.
        context: What `context_cache` returned for the same users.

    Raises:
        ValueError: If the ranker's logits are no linear function of one layer's input.
    """
    with torch.inference_mode():
        seen = _seen(model, lambda: model.score_candidates(candidates, context))
    return _with_one(seen.float().cpu().numpy())


def _with_one(features: FloatArray) -> FloatArray:
    """Return the features as float64 with a last column of 1, the bias's."""
    return np.concatenate([features, np.ones((*features.shape[:-1], 1))], axis=-1, dtype=np.float64)


def _seen(model: SequenceRanker, run: Callable[[], Tensor]) -> Tensor:
    """Run the model and return what its output layer was given."""
    given: list[Tensor] = []
    hook = _output_layer(model).register_forward_pre_hook(lambda _, inputs: given.append(inputs[0]))
    try:
        run()
    finally:
        hook.remove()
    return given[-1]


def _output_layer(model: SequenceRanker) -> nn.Linear:
    """Return the layer whose result is the logits.

    Raises:
        ValueError: If there is none, or something is added to or done with its result.
    """
    output = getattr(model.head, "output", None)
    later = (
        model.wide is not None
        or model.offsets is not None
        or not isinstance(model.calibration, nn.Identity)
    )
    if not isinstance(output, nn.Linear) or later:
        raise ValueError(
            "exploration draws the weights of one output layer whose result is the logits; use the "
            "head mlp, linear or parallel_dcn without a wide part, position offsets or calibration"
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
