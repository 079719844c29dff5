"""Turn an item's numbers into percentiles 1 to 100 by histograms of the days strictly before.

A number falls into an integer bin (`log_bin`); the percentile of a number v is
max(1, ceil(100 P(X < v))) over the rows of the window, where X < v compares bins. One row of the
window is one item on one day on which it was shown, counted as it was known when the day of the
cuts began: what arrives later changes no cut, whenever the cuts are fitted, but for an explicit
re-fit.

Source: spec llm-dual-encoder-retrieval, section 5.3.
"""

from datetime import date, timedelta

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from pipelines.item_numbers import FEATURES
from pipelines.known_counters import is_known_before
from pipelines.refits import CutRefit
from pipelines.tables import PERCENTILE_CUTS

WINDOW_DAYS = 28
LINEAR_BINS = 32
BINS_PER_OCTAVE = 16

_LINEAR_OCTAVES = 5  # 2 ** 5 == LINEAR_BINS
_OCTAVE_BITS = 4  # 2 ** 4 == BINS_PER_OCTAVE
_GROUP = ("event_date", "feature", "age_bucket")


def log_bin(value: Column) -> Column:
    """Return the histogram bin of a whole number; integer arithmetic only.

    A number below `LINEAR_BINS` is its own bin; above, each octave [2^k, 2^(k+1)) is cut into
    `BINS_PER_OCTAVE` bins of equal width, at most 6.25% of the number. The bin never falls when
    the number rises. A negative number counts as 0; null stays null.
    """
    number = F.when(value < 0, F.lit(0)).otherwise(value).cast("long")
    octave = F.length(F.bin(number)) - 1
    within = F.call_function("shiftright", number, octave - _OCTAVE_BITS) - BINS_PER_OCTAVE
    spaced = LINEAR_BINS + (octave - _LINEAR_OCTAVES) * BINS_PER_OCTAVE + within
    return F.when(number < LINEAR_BINS, number).otherwise(spaced).cast("int")


def days_to_fit(item_days: DataFrame, *, refits: tuple[CutRefit, ...] = ()) -> DataFrame:
    """Return every day with events, and the day before which its window's rows must have arrived.

    Args:
        item_days: Rows of `ITEM_DAYS`.
        refits: Re-fits so far, in any order; of several for one day the latest bound holds.

    Returns:
        event_date and known_before.
    """
    bounds = [
        F.when(F.col("event_date").between(refit.first_day, refit.last_day), refit.arrived_before)
        for refit in refits
    ]
    known_before = F.greatest(F.col("event_date"), *bounds) if bounds else F.col("event_date")
    days = item_days.select("event_date").distinct()
    return days.withColumn("known_before", known_before)


def fit_cuts(
    numbers: DataFrame, *, days: DataFrame, start: date, end: date, window_days: int = WINDOW_DAYS
) -> DataFrame:
    """Fit the cuts of days on the days strictly before them, as known at a given moment.

    Args:
        numbers: Rows of `item_numbers.item_numbers` for `known_counters.known_counters`, from
            `window_days` before `start` to `end`.
        days: Rows of `days_to_fit`.
        start: First day to return.
        end: Last day to return, inclusive.
        window_days: Days of the trailing window.

    Returns:
        Rows of `PERCENTILE_CUTS`; none for a day, feature and age without rows in its window.

    Raises:
        ValueError: If the window is empty or `end` is before `start`.
    """
    if window_days < 1 or end < start:
        raise ValueError(f"no days to fit: {window_days=}, {start=}, {end=}")
    wanted = days.where(F.col("event_date").between(start, end))
    histogram = _histogram(numbers, start=start, end=end, window_days=window_days)
    trailing = (
        histogram.join(F.broadcast(wanted), on="event_date", how="inner")
        .where(is_known_before(F.col("known_before")))
        .groupBy(*_GROUP, "bin")
        .agg(F.sum("rows").alias("rows"))
    )
    lower = Window.partitionBy(*_GROUP).orderBy("bin").rowsBetween(Window.unboundedPreceding, -1)
    below = F.coalesce(F.sum("rows").over(lower), F.lit(0).cast("long"))
    fitted = (
        trailing.withColumn("below", below)
        .groupBy(*_GROUP)
        .agg(
            F.sort_array(F.collect_list(F.struct("bin", "below"))).alias("cuts"),
            F.sum("rows").alias("num_rows"),
        )
        .withColumns({"bins": F.col("cuts.bin"), "counts_below": F.col("cuts.below")})
    )
    content = F.to_json(F.struct(*_GROUP, "bins", "counts_below", "num_rows"))
    versioned = fitted.withColumn("version", F.sha2(content, 256))
    return versioned.select(*PERCENTILE_CUTS.column_names)


def percentile(value: Column, *, bins: Column, counts_below: Column, num_rows: Column) -> Column:
    """Return the percentile of a number under one row of cuts: 1..100, or 0 where either is null.

    Args:
        value: The number.
        bins: `PERCENTILE_CUTS.bins`.
        counts_below: `PERCENTILE_CUTS.counts_below`.
        num_rows: `PERCENTILE_CUTS.num_rows`.
    """
    own_bin = log_bin(value)
    place = F.size(F.filter(bins, lambda other: other < own_bin))
    below = F.coalesce(F.get(counts_below, place), num_rows)
    rounded_up = F.call_function("div", 100 * below + num_rows - 1, F.nullif(num_rows, F.lit(0)))
    known = F.when(rounded_up < 1, F.lit(1)).otherwise(rounded_up)
    return F.when(value.isNull() | known.isNull(), F.lit(0)).otherwise(known).cast("int")


def assign_percentiles(
    numbers: DataFrame, cuts: DataFrame, *, features: tuple[str, ...] = FEATURES
) -> DataFrame:
    """Add `<feature>_percentile` for each feature: 0 unknown, else 1..100.

    Args:
        numbers: Rows with event_date, age_bucket and a column per feature; best one row per item
            and day, not per event.
        cuts: Rows of `PERCENTILE_CUTS`; a day, feature and age without cuts gives 0.
        features: The features to turn into percentiles.

    Returns:
        The rows of `numbers` with the new columns last.
    """
    parts = F.struct("bins", "counts_below", "num_rows")
    wide = cuts.groupBy("event_date", "age_bucket").agg(
        *(F.max(F.when(F.col("feature") == name, parts)).alias(f"{name}_cuts") for name in features)
    )
    joined = numbers.join(wide, on=["event_date", "age_bucket"], how="left")
    added = {
        f"{name}_percentile": percentile(
            F.col(name),
            bins=F.col(f"{name}_cuts.bins"),
            counts_below=F.col(f"{name}_cuts.counts_below"),
            num_rows=F.col(f"{name}_cuts.num_rows"),
        )
        for name in features
    }
    return joined.withColumns(added).select(*numbers.columns, *added)


def _histogram(numbers: DataFrame, *, start: date, end: date, window_days: int) -> DataFrame:
    """Count rows per bin, each day's counts repeated for every day that may look back at it."""
    reach = timedelta(days=window_days)
    in_reach = F.col("event_date").between(start - reach, end - timedelta(days=1))
    pairs = F.array(
        *(F.struct(F.lit(name).alias("feature"), F.col(name).alias("value")) for name in FEATURES)
    )
    daily = (
        numbers.where(in_reach)
        .select("event_date", "age_bucket", "known_on", "known_until", F.inline(pairs))
        .where(F.col("value").isNotNull())
        .groupBy(*_GROUP, "known_on", "known_until", log_bin(F.col("value")).alias("bin"))
        .agg(F.count(F.lit(1)).alias("rows"))
    )
    first = F.greatest(F.date_add("event_date", 1), F.lit(start))
    last = F.least(F.date_add("event_date", window_days), F.lit(end))
    return daily.withColumn("event_date", F.explode(F.sequence(first, last)))
