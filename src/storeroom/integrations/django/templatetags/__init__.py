"""Each module is a library of template tags."""
