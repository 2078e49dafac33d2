"""get_or_set(): decide, compute once, store."""
