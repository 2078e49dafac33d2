"""Runs django-redis's own test suite on its class and on Storeroom's, and compares them test by test.

``python -m tests.django_redis_suite [MODULE ...]`` takes its source distribution, makes a virtual environment with what
its tests need under ``.cache/``, and runs the tests of each of its settings modules twice: as they are, and with the
path of its class replaced by ours, in the settings and wherever a test patches the class. differences.toml names every
test whose result differs, with its reason; no other may.
"""
