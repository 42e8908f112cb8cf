"""For all tests: properties have no deadline, since machines that run tests are busy, and the same examples each time.

HYPOTHESIS_PROFILE=thorough looks for others, and for many more.
"""

from __future__ import annotations

import os

from hypothesis import settings

settings.register_profile("ours", deadline=None, print_blob=True, derandomize=True)
settings.register_profile("thorough", deadline=None, print_blob=True, max_examples=1000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ours"))
