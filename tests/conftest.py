"""How much the searching tests search: ``fast`` unless ``--hypothesis-profile`` says ``deep``."""

from hypothesis import HealthCheck, settings

# The same examples in every run: a red run can be repeated, and green stays green until code changes.
settings.register_profile("fast", max_examples=60, derandomize=True, deadline=None, print_blob=True)
settings.register_profile(
    "deep", max_examples=5000, deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("fast")
