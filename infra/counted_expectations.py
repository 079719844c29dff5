"""Great Expectations' column rules, counted in one pass and without fetching offending values.

The library's own classes ask Spark for the list of unexpected values of every rule, one query
each, even where the list is cut to nothing. Here the counts suffice: those of all rules come from
a few shared aggregations, and no value of a row leaves Spark. Imports Great Expectations.
"""

from typing import Any

from great_expectations.expectations.core.expect_column_values_to_be_between import (
    ExpectColumnValuesToBeBetween,
)
from great_expectations.expectations.core.expect_column_values_to_be_in_set import (
    ExpectColumnValuesToBeInSet,
)
from great_expectations.expectations.core.expect_column_values_to_not_be_null import (
    ExpectColumnValuesToNotBeNull,
)


class _Counted:
    """Drop the query for unexpected values from what an expectation depends on."""

    def get_validation_dependencies(self, *arguments: Any, **options: Any) -> Any:
        """Return the library's dependencies but the list of values."""
        found = super().get_validation_dependencies(*arguments, **options)  # pyright: ignore[reportAttributeAccessIssue]
        listed = [name for name in found.get_metric_names() if name.endswith(".unexpected_values")]
        for name in listed:
            found.remove_metric_configuration(name)
        return found


class ExpectCountedValuesToNotBeNull(_Counted, ExpectColumnValuesToNotBeNull):
    """Expect no null in a column."""


class ExpectCountedValuesToBeInSet(_Counted, ExpectColumnValuesToBeInSet):
    """Expect a column's values from a set."""


class ExpectCountedValuesToBeBetween(_Counted, ExpectColumnValuesToBeBetween):
    """Expect a column's values within bounds."""


KINDS: dict[str, type] = {
    "ExpectColumnValuesToNotBeNull": ExpectCountedValuesToNotBeNull,
    "ExpectColumnValuesToBeInSet": ExpectCountedValuesToBeInSet,
    "ExpectColumnValuesToBeBetween": ExpectCountedValuesToBeBetween,
}
