"""For all tests: properties have no deadline, since machines that run tests are busy."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("ours", deadline=None, print_blob=True)
settings.load_profile("ours")
