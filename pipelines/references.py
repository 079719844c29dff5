"""Referential integrity: ids that one table holds and another must hold as well."""

from dataclasses import dataclass

from pipelines import tables
from pipelines.contract import Table

REFERENCES = Table(
    name="references",
    group="tables",
    row="one column whose values another table must hold",
    columns=(
        ("reference", "string"),  # "table.column in table.column"
        ("num_values", "bigint"),  # different ones
        ("num_missing", "bigint"),  # of these, not in the other table
    ),
    key=("reference",),
    required=("reference", "num_values", "num_missing"),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Reference:
    """Say which column's values another table must hold under the same name.

    Attributes:
        table: Table that refers; a null refers to nothing, and 0 in a list of indices neither.
        column: Its column, a list's elements counting one by one.
        target: Table that must hold the values.
    """

    table: Table
    column: str
    target: Table

    @property
    def name(self) -> str:
        """Return the reference in words."""
        return f"{self.table.name}.{self.column} in {self.target.name}"


OF_SEQUENCES = (
    Reference(table=tables.ITEMS, column="item_id", target=tables.ITEM_VERSIONS),
    Reference(table=tables.ITEM_VERSIONS, column="item_id", target=tables.ITEMS),
    Reference(table=tables.USERS, column="user_id", target=tables.USER_VERSIONS),
    Reference(table=tables.USER_VERSIONS, column="user_id", target=tables.USERS),
    Reference(table=tables.INTERACTIONS, column="item_id", target=tables.ITEMS),
    Reference(table=tables.INTERACTIONS, column="user_id", target=tables.USERS),
    Reference(table=tables.ITEM_COUNTERS, column="item_id", target=tables.ITEMS),
    Reference(table=tables.SEQUENCE_EVENTS, column="item_id", target=tables.ITEMS),
    Reference(table=tables.SEQUENCE_EVENTS, column="user_id", target=tables.USERS),
    Reference(table=tables.SEQUENCES, column="user_id", target=tables.USERS),
    Reference(table=tables.SEQUENCES, column="item_index", target=tables.ITEMS),
)
OF_PROMPTS = (
    Reference(table=tables.ITEM_TEXT, column="item_id", target=tables.ITEMS),
    Reference(table=tables.ITEM_EMBEDDINGS, column="item_id", target=tables.ITEMS),
    Reference(table=tables.SEMANTIC_IDS, column="item_id", target=tables.ITEMS),
    Reference(table=tables.ITEM_PROMPTS, column="item_id", target=tables.ITEMS),
    Reference(table=tables.MEMBER_PROMPTS, column="item_id", target=tables.ITEMS),
    Reference(table=tables.MEMBER_PROMPTS, column="user_id", target=tables.USERS),
)
