"""A storage as the framework sees it: the hooks that a backend fills in, and what is built on them."""
