"""What holds for all tests."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

# Neither asks how fast a machine is; what hangs is ended by pytest's own time-out.
settings.register_profile("stead", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("stead")
