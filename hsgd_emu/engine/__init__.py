"""Schedules, SimPy processes, the event record; the only importer of simpy; no torch."""
