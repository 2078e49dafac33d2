"""Groups of Redis servers under load while they fail at random: ``python -m tests.storms``."""
