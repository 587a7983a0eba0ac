"""A second implementation of DESIGN section 4, written from its text alone: what the engine is held against."""
