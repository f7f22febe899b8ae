from hypothesis import HealthCheck, settings

# A busy machine is no fault of the code: neither time per example nor the making of examples is judged.
settings.register_profile("unit", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unit")
