"""What every test shares; fixtures of one subject live beside its tests."""
