"""Shared by all tests. Its place also puts this folder on the import path, so that tests can import `oracle`.

Hypothesis takes the same examples every time, so that the same code gives the same verdict everywhere. To look for new
failures: `HYPOTHESIS_PROFILE=explore pytest` takes others each time (and `--hypothesis-seed=1` chosen ones).
"""

import os

from hypothesis import settings

settings.register_profile("same", derandomize=True)
settings.register_profile("explore", print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))
