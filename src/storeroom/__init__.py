"""Storeroom: one CACHES dict and one API over every storage."""
