"""``storeroom top``: all caches of this user's running processes, as they are at this moment.

``reports`` asks the processes and reads their answers, ``rows`` makes the figures of them, ``view`` is what stands on
the screen, by keys pressed and by its size, and ``screen`` is the terminal. ``command`` puts them together.
"""
