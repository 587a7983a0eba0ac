"""The run folder: written as the run goes, whole after a kill -9, read as plain rows or pandas frames."""
