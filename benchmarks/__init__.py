"""Measurements: Storeroom beside its peers. Run by `make bench`, or one by one with `python -m`."""
