"""The report of a study: maps, charts, what the time depends on, how it is spread."""
