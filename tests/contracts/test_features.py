"""The two sides of the house meet in data: `ml`'s feature spec against the table contracts."""

from infra.delta_rows import COUNT_COLUMNS
from ml.features import EVENT_COLUMNS, SEQUENCE_COLUMNS
from ml.tokenizers import special_tokens
from pipelines import prompts
from pipelines.tables import INTERACTIONS, SEQUENCES

OUTCOMES = {"action_bits", "dwell_bucket"}
TRUTH = {"true_probability", "reachable_probability"}
LOGGING_POLICY = {"propensity": "array<double>", "is_shuffled": "array<boolean>"}


def test_every_event_column_of_the_model_is_in_the_sequences_contract() -> None:
    assert set(EVENT_COLUMNS.values()) <= set(SEQUENCES.column_names)


def test_every_column_that_is_read_or_counted_on_is_in_the_sequences_contract() -> None:
    assert {*SEQUENCE_COLUMNS, *COUNT_COLUMNS} <= set(SEQUENCES.column_names)
    assert set(EVENT_COLUMNS.values()) <= set(SEQUENCE_COLUMNS)
    assert set(COUNT_COLUMNS) <= set(SEQUENCES.required)


def test_event_columns_are_aligned_arrays() -> None:
    kinds = dict(SEQUENCES.columns)
    assert all(kinds[column].startswith("array<") for column in EVENT_COLUMNS.values())


def test_what_the_logging_policy_did_is_aligned_and_no_feature() -> None:
    kinds = dict(SEQUENCES.columns)
    assert {name: kinds[name] for name in LOGGING_POLICY} == LOGGING_POLICY
    assert LOGGING_POLICY.keys().isdisjoint(EVENT_COLUMNS.values())


def test_no_planted_truth_is_a_feature() -> None:
    assert set(INTERACTIONS.column_names) >= TRUTH
    assert TRUTH.isdisjoint(EVENT_COLUMNS.values())


def test_outcomes_are_the_only_columns_behind_the_causal_shift() -> None:
    assert set(EVENT_COLUMNS.values()) >= OUTCOMES


def test_both_sides_know_the_same_special_tokens() -> None:
    assert special_tokens.SPECIAL_TOKENS == prompts.SPECIAL_TOKENS
