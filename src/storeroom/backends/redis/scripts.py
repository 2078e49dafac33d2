"""Scripts that run within the server, where no single command is atomic.

A number that a script returns is a double, which holds 53 bits, so numbers are returned as their digits.
"""

import hashlib
from typing import Final

__all__ = [
    "COMPARE_DELETE", "COMPARE_RENAME", "COMPARE_SET", "COMPARE_SET_UNTIL", "INCR", "IS_ENVELOPE", "RENAME",
    "TOUCH", "Script",
]  # fmt: skip


class Script:
    """A script, and the digest by which the server remembers it."""

    __slots__ = ("digest", "source")

    def __init__(self, source: str) -> None:
        self.source = source
        # The protocol's name for a script, not a matter of secrecy: https://redis.io/commands/evalsha
        self.digest = hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()


INCR: Final = Script("""\
local old = redis.call('GET', KEYS[1])
if not old then
  return false
end
if type(redis.pcall('INCRBY', KEYS[1], ARGV[1])) == 'number' then
  return redis.call('GET', KEYS[1])
end
return {old}
""")
"""Adds to an integer. Returns the new one; nil if there is no entry; a list of the value if it is something else."""

_EXPECTED = """\
local old = redis.call('GET', KEYS[1])
if old ~= ARGV[1] then
  return old
end
"""
"""Returns the value, doing nothing, if it is not the one expected."""

COMPARE_SET: Final = Script(f"""\
{_EXPECTED}\
redis.call('SET', KEYS[1], ARGV[2], 'KEEPTTL')
return 1
""")
"""Replaces a value if it is the one expected, keeping its expiry. Returns 1, or the other value (nil for none)."""

COMPARE_DELETE: Final = Script(f"""\
{_EXPECTED}\
return redis.call('UNLINK', KEYS[1])
""")
"""Removes a value if it is the one expected. Returns 1, or the other value (nil for none)."""

COMPARE_RENAME: Final = Script(f"""\
{_EXPECTED}\
local left = redis.call('PTTL', KEYS[1])
if left >= 0 then
  redis.call('SET', KEYS[2], ARGV[2], 'PX', math.max(left, 1))
else
  redis.call('SET', KEYS[2], ARGV[2])
end
redis.call('UNLINK', KEYS[1])
return 1
""")
"""Moves an entry if its value is the one expected, giving it another. Returns 1, or the other value (nil for none)."""

COMPARE_SET_UNTIL: Final = Script("""\
local old = redis.pcall('GET', KEYS[1])
if type(old) == 'table' then
  old = ''
end
if old ~= ARGV[1] then
  return old
end
if ARGV[3] == '' then
  redis.call('SET', KEYS[1], ARGV[2])
else
  redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
end
return 1
""")
"""Replaces a value if it is the one expected; expires after so many milliseconds, never if there are none.
Returns 1, or the other value (nil for none). A list or a hash, which is no cache's entry, counts as an empty value."""

_ENVELOPE = """\
local head = redis.call('GETRANGE', KEYS[1], 0, ARGV[1])
if string.sub(head, 1, 1) == ARGV[2]
    or (string.byte(head, 1) == 1 and #head > ARGV[1] + 0 and string.sub(head, -1) == ARGV[2]) then
  return 2
end
"""
"""Returns 2 for an envelope; takes the offset of the byte that tells it, and that byte: see ``envelope.is_packed``."""

IS_ENVELOPE: Final = 2
"""The reply to RENAME and TOUCH, which then have done nothing."""

RENAME: Final = Script(f"""\
{_ENVELOPE}\
if head == '' then
  return 0
end
redis.call('RENAME', KEYS[1], KEYS[2])
return 1
""")
"""Moves an entry. Returns 1, 0 if there is no entry, or 2, having done nothing, for an envelope."""

TOUCH: Final = Script(f"""\
{_ENVELOPE}\
if ARGV[3] ~= '' then
  return redis.call('PEXPIRE', KEYS[1], ARGV[3])
end
redis.call('PERSIST', KEYS[1])
return redis.call('EXISTS', KEYS[1])
""")
"""Lets an entry expire after so many milliseconds, never if there are none. Returns 1, 0 if there is no entry, or 2,
having done nothing, for an envelope."""
