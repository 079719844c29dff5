"""One adapter per raw source: from the files as they are published to canonical raw events."""
