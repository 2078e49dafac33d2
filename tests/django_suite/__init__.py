"""Runs Django's own test suites, unchanged but for three dotted paths, on Storeroom's backends.

``python -m tests.django_suite`` takes two pairs of a Django and a Python: the long-term release on the oldest Python
that Storeroom supports, and the newest Django that the newest Python on the machine runs. For each it makes a virtual
environment under ``.cache/``, takes ``tests/`` out of Django's source distribution, replaces the paths of Django's
classes by those of ours, and calls Django's own ``runtests.py``, once for each phase, several at a time.

exclusions.toml names every test that is left out, and why. `inside` holds the modules that Django's process imports.
"""
