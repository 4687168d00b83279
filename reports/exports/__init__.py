"""Runs and comparisons in the formats of others: JUnit, OpenMetrics, Bencher, Otava, Parquet, Markdown."""
