"""Runs Django's own test suites, unchanged but for three dotted paths, on Storeroom's backends.

``python -m tests.django_suite`` takes two pairs of a Django and a Python: the long-term release on the oldest Python
that Storeroom supports, and the newest Django that the newest Python on the machine runs. For each it makes a virtual
environment under ``.cache/``, takes ``tests/`` out of Django's source distribution, writes our classes' paths in place
of Django's, and calls Django's own ``runtests.py``.

exclusions.toml names every test that is left out, and why. `inside` holds what runs within Django's process.
"""
