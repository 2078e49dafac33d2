"""Types of the standard library whose values have a text: loaded when the first value of no literal's type comes."""

from datetime import date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Final
from uuid import UUID

__all__ = ["MOMENTS", "PATHS", "QUOTED"]

QUOTED: Final = (date, timedelta, Decimal, UUID)
"""Types whose str() tells their values apart."""

MOMENTS: Final = (time, datetime)
"""Types whose values also have a time zone and a fold."""

PATHS: Final = (PurePosixPath, PureWindowsPath, type(Path()))
