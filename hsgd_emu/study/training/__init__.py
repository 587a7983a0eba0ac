"""Trials that several studies share: known by their content, learned once, here or on a cluster."""
