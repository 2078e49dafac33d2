"""Defaults of arguments that can be told from the same text, if somebody gives it."""

__all__ = ["Unnamed"]


class Unnamed(str):
    """The default of --alias."""

    __slots__ = ()
