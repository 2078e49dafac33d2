"""What all tests share; the fixtures of one subject live beside its tests."""

#: The first is a command, and a part of it runs only within Django's own test run; the second is for mypy alone.
collect_ignore = ["django_suite", "typing"]
