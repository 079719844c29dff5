"""Pure Spark: table contracts, one function per table, one adapter per raw source."""
