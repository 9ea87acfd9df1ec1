"""What holds for all tests."""

from hypothesis import HealthCheck, settings

# A busy machine may take a second for anything.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")
