"""@cached: functions that remember.

``decorator`` checks the options, and makes a ``cached_function`` of the function that it decorates. ``keys`` makes the
key of each call: of the function's name (``origin``) and the text of each argument (``argument_text``), or by a
template (``templates``); ``key_function`` writes its code.
"""

from storeroom.functions.decorator import cached

__all__ = ["cached"]
