"""The figures of a report, as markup: pure functions of a run."""
