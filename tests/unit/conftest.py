"""How the property tests run: as many examples as ever, and no verdict on how busy the machine is."""

from hypothesis import HealthCheck, settings

settings.register_profile("runwire", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("runwire")
