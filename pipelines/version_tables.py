"""The contracts of attributes that change: slowly changing dimensions of type 2.

An id has exactly one version at every instant: the first is valid since ever (`valid_from` is
null), each is valid up to the next one's `valid_from`, and the last has no end (`valid_to` is
null). Before the first version that a source dates, all attributes are null: nothing is known.
"""

from pipelines.contract import Table

_VALID = (
    ("valid_from", "timestamp"),  # inclusive; null: since ever
    ("valid_to", "timestamp"),  # exclusive; null: open
)

ITEM_VERSIONS = Table(
    name="item_versions",
    group="tables",
    row="one item as it was described from one instant up to the next change",
    columns=(
        ("item_id", "string"),
        ("item_index", "int"),
        *_VALID,
        ("is_identity", "boolean"),  # the one that ID, text and static features are made from
        ("created_time", "timestamp"),  # publication as it was known then; else null
        ("author_id", "string"),
        ("tags", "array<string>"),
        ("text", "string"),
        ("duration_ms", "bigint"),
        ("features", "map<string,string>"),
    ),
    key=("item_id", "valid_from"),
    required=("item_id", "item_index", "is_identity"),
)

USER_VERSIONS = Table(
    name="user_versions",
    group="tables",
    row="one user as the source described them from one instant up to the next change",
    columns=(
        ("user_id", "string"),
        *_VALID,
        ("text", "string"),
        ("features", "map<string,string>"),
    ),
    key=("user_id", "valid_from"),
    required=("user_id",),
)
