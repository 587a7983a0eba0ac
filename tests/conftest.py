"""Shared by all tests. Its place also puts this folder on the import path, so that tests can import `oracle`."""
