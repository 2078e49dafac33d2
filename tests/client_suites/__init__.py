"""Runs the test suites of Django packages that use a cache, once on Django's classes and once on Storeroom's.

``python -m tests.client_suites [NAME ...]`` takes each package's source distribution, makes a virtual environment with
what its tests need under ``.cache/``, and runs the package's own tests on each storage: as they are, and with the
paths of the classes in their settings and tests replaced. The two runs are compared test by test. clients.toml names
the packages, and every test whose result differs, with its reason. `inside` holds what pytest's process imports.
"""
