"""Requests a second through real servers, where the page is cached: Storeroom beside its peers, and beside nginx.

``python -m benchmarks.served`` (``make bench-pages``). `contenders` has who does what, `asgi_sites` and `wsgi_sites`
the applications, `serving` starts their servers, `load` asks them, `run` lets them take turns, `page` writes it down.
"""
