"""Many emulations out of one run: re-timing."""
