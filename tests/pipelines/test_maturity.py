"""Labels are final once their actions have had the time to arrive."""

from dataclasses import replace

from pipelines.maturity import mature_until
from tests.pipelines.log_rows import BERLIN, utc


def test_labels_mature_before_the_logs_end_by_the_wait_and_in_its_zone() -> None:
    # The last day, 31 March in Berlin, ends at 22:00 UTC: summer time has begun.
    assert mature_until(BERLIN) == utc("31 22:00")
    assert mature_until(replace(BERLIN, maturity_seconds=3600)) == utc("31 21:00")
