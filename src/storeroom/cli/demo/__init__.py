"""``storeroom demo``: Python's own documentation, rendered through the file cache by several processes.

The demo starts processes (``processes``), each of which reads documentation pages through the cache (``pages``). They
read everything cold, warm, several at once, and after a restart (``passes``), and ``command`` shows their counts.
The directing process never opens the cache itself, so that no process with the cache open is left after a "restart".

Nothing is imported here: each process runs ``pages`` as its main module, and nothing may have imported it before.
"""
