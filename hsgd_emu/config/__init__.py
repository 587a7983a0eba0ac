"""YAML in, frozen typed models out; the only reader of input YAML."""
