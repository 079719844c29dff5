"""What every table is expected to be: one suite of rules per table contract.

The rules that a contract implies (required columns, the key) come from the contract; the others
are written in the modules named after the table groups. A null breaks no rule but completeness.
"""

from collections.abc import Callable

from infra.expectations_days import interaction_day_rules, raw_day_rules
from infra.expectations_events import interaction_rules, raw_rules, rejected_rules
from infra.expectations_item_days import item_day_rules
from infra.expectations_references import reference_rules
from infra.expectations_segments import segment_rules
from infra.expectations_sequences import sequence_rules
from infra.expectations_tables import counter_rules, cut_rules, item_rules, user_rules
from infra.expectations_tokens import (
    embedding_rules,
    item_prompt_rules,
    item_text_rules,
    member_prompt_rules,
    semantic_id_rules,
)
from infra.expectations_versions import item_version_rules, user_version_rules
from infra.rules import Rule, contract_rules, rows_exist
from pipelines import day_tables, references, tables
from pipelines.contract import Table
from pipelines.sources.manifest import SourceManifest

Rules = Callable[[SourceManifest], tuple[Rule, ...]]
_RULES: dict[str, Rules] = {
    tables.RAW_EVENTS.name: raw_rules,
    tables.REJECTED_EVENTS.name: rejected_rules,
    tables.INTERACTIONS.name: interaction_rules,
    tables.ITEM_VERSIONS.name: item_version_rules,
    tables.ITEMS.name: item_rules,
    tables.USER_VERSIONS.name: user_version_rules,
    tables.USERS.name: user_rules,
    tables.ITEM_DAYS.name: item_day_rules,
    tables.ITEM_COUNTERS.name: counter_rules,
    tables.PERCENTILE_CUTS.name: cut_rules,
    tables.SEQUENCE_EVENTS.name: segment_rules,
    tables.SEQUENCES.name: sequence_rules,
    tables.ITEM_TEXT.name: item_text_rules,
    tables.ITEM_EMBEDDINGS.name: embedding_rules,
    tables.SEMANTIC_IDS.name: semantic_id_rules,
    tables.MEMBER_PROMPTS.name: member_prompt_rules,
    tables.ITEM_PROMPTS.name: item_prompt_rules,
    references.REFERENCES.name: reference_rules,
    day_tables.RAW_DAYS.name: raw_day_rules,
    day_tables.INTERACTION_DAYS.name: interaction_day_rules,
}
# A log may be clean; and without days before a day nothing is known of an item on it.
_MAY_BE_EMPTY = (tables.REJECTED_EVENTS.name,)
_EMPTY_WITHOUT_A_PAST = (tables.PERCENTILE_CUTS.name,)
# Duplicates are kept as they came, and each refused copy is a row.
_MAY_REPEAT = (tables.RAW_EVENTS.name, tables.REJECTED_EVENTS.name)


def suite(table: Table, manifest: SourceManifest, *, whole: bool = True) -> tuple[Rule, ...]:
    """Return all rules of a table.

    Args:
        table: The contract.
        manifest: Says which actions, surfaces, days and splits the source has.
        whole: False for some days of the table alone, which may be without rows.
    """
    has_past = manifest.has_dates and manifest.start_date < manifest.end_date
    may_be_empty = (
        table.name in _MAY_BE_EMPTY
        or not whole
        or (table.name in _EMPTY_WITHOUT_A_PAST and not has_past)
    )
    first = () if may_be_empty else (rows_exist(),)
    contract = contract_rules(table, has_unique_key=table.name not in _MAY_REPEAT)
    return (*first, *contract, *_RULES[table.name](manifest))
