"""Flushes in Redis: one script that raises numbers and tells everybody, whatever state Redis is in."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from inferdock.cache.epochs import MAX_AHEAD_MS, Epochs
from inferdock.cache.redis_client import RedisClient
from inferdock.cache.redis_names import Names, fields_of

# A new flush (strict) rises above every number there is, because an entry's epoch is the highest of its scopes'.
# Where the number of all is missing, others may have been lost with it: then nothing from before counts.
# The fields of the event are those of redis_names: type, origin, tag, number.
SCRIPT: Final = """
local now, limit = tonumber(ARGV[1]), tonumber(ARGV[1]) + tonumber(ARGV[2])
local known = redis.pcall('HGETALL', KEYS[1])
if known.err then
  redis.call('DEL', KEYS[1])
  known = {}
end
local value, count, highest = {}, 0, 0
for i = 1, #known, 2 do
  local n = tonumber(known[i + 1])
  if n and n > 0 and n <= limit and n == math.floor(n) then
    value[known[i]] = n
    count = count + 1
    highest = math.max(highest, n)
  else
    redis.call('HDEL', KEYS[1], known[i])
  end
end
local function raise(tag, n)
  if not value[tag] then count = count + 1 end
  value[tag] = n
  highest = math.max(highest, n)
  local text = string.format('%.0f', n)
  redis.call('HSET', KEYS[1], tag, text)
  redis.pcall('XADD', KEYS[2], 'MAXLEN', '~', ARGV[4], '*', 't', 'f', 'o', ARGV[3], 's', tag, 'n', text)
end
for i = 6, #ARGV, 3 do
  local tag, n = ARGV[i], tonumber(ARGV[i + 1])
  if ARGV[i + 2] == '1' and n <= highest and n ~= value[tag] then n = highest + 1 end
  if n > (value[tag] or 0) then raise(tag, n) end
end
if not value['g'] then raise('g', math.max(now, highest + 1)) end
if count > tonumber(ARGV[5]) then
  redis.call('DEL', KEYS[1])
  raise('g', highest + 1)
end
return redis.call('HGETALL', KEYS[1])
"""


class RedisEpochs:
    """Gives this process's numbers to Redis, and brings all of them back.

    Args:
        origin: of this process, on its events.
        max_log: events that the stream keeps, about.
    """

    def __init__(self, names: Names, epochs: Epochs, *, origin: str, max_log: int) -> None:
        self._names = names
        self._epochs = epochs
        self._origin = origin
        self._max_log = max_log

    async def exchange(self, client: RedisClient, now: float, *, everything: bool = False) -> list[str]:
        """Redis learns our numbers, we learn its; returns the tags that rose here.

        Args:
            client: may raise what it likes.
            now: seconds since 1970.
            everything: also numbers that Redis has confirmed before, and may have lost.
        """
        fresh = self._epochs.unspread()
        told = self._epochs.all() if everything else fresh
        reply = await client.execute("EVAL", SCRIPT, 2, *self._arguments(told, fresh, now))
        # What rose in between stays unspread: numbers of a tag only rise.
        return self._epochs.merge(numbers_of(reply))

    def _arguments(self, told: dict[str, int], fresh: Collection[str], now: float) -> list[str | int]:
        arguments: list[str | int] = [self._names.log, int(now * 1000), MAX_AHEAD_MS, self._origin, self._max_log]
        arguments.insert(0, self._names.epochs)
        arguments.append(self._epochs.max_scopes)
        for tag, value in told.items():
            arguments += (tag, value, int(tag in fresh))
        return arguments


def numbers_of(reply: list[bytes]) -> dict[str, int]:
    """A reply of tags and numbers; what is neither is left out."""
    numbers: dict[str, int] = {}
    for tag, text in fields_of(reply).items():
        number = number_of(text)
        if number is not None:
            numbers[tag.decode("ascii", "replace")] = number
    return numbers


def number_of(text: bytes) -> int | None:
    """The whole number in these bytes, None if there is none."""
    return int(text) if text.isdigit() and len(text) < 20 else None
