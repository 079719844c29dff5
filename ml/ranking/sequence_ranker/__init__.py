"""Sequence rankers: one family of parts, from the interleaved baseline to AttnMVP and Feed-SR."""
