"""Connections of Storeroom to frameworks."""
