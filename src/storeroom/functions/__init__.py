"""@cached: functions that remember."""
