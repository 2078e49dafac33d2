"""What all tests share; the fixtures of one subject live beside its tests."""

#: It is a command, and a part of it runs only within Django's own test run.
collect_ignore = ["django_suite"]
