"""Specifications -> validated tree and routes."""
