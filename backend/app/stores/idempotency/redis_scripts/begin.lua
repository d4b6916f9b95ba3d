-- begin: own a key, or learn who does, or get its result.
--
-- KEYS[1]  the record of the key: a hash of state (in_progress, free, completed), fingerprint, token, attempt, holder,
--          lease_until_ms, expires_at_ms and, where it is completed, digest and result
-- KEYS[2]  the last token of the tenant; it outlives every record
-- ARGV[1]  fingerprint of the request
-- ARGV[2]  holder, as Holder.encode() writes it
-- ARGV[3]  lease, in milliseconds
-- ARGV[4]  how long a record that is never completed is kept after its lease, in milliseconds
-- ARGV[5]  token of an owner whose process is gone: its lease protects it no more; '' for none
-- ARGV[6]  the time in milliseconds, for tests; '' for the server's
--
-- Result   {token, attempt} where the key is owned by that token now, as the attempt of that number;
--          {nil, time in ms, then the record as it was found: its fields in the order above} where nothing was changed
--
-- Atomic because of two that find a key free only one may own it, and because no token is given twice.

local GRACE_MS = 60000 -- expires_at_ms decides; Redis clears away a minute later

local clock = redis.call('TIME')
local now_us = ARGV[6] == '' and clock[1] * 1000000 + clock[2] or ARGV[6] * 1000
local now_ms = math.floor(now_us / 1000)

local found = redis.call('HMGET', KEYS[1], 'state', 'fingerprint', 'token', 'attempt', 'holder', 'lease_until_ms',
  'expires_at_ms', 'digest', 'result')
local state, fingerprint, owner, attempt = found[1], found[2], found[3], found[4]
local known = state and (tonumber(found[7]) or math.huge) > now_ms

local lease_is_over = (tonumber(found[6]) or math.huge) <= now_ms or owner == ARGV[5]
local is_free = not known
  or fingerprint == ARGV[1] and (state == 'free' or state == 'in_progress' and lease_is_over)

if not is_free then
  -- A write without effect: a replica, whose record may be out of date, refuses it, and so answers nothing.
  redis.call('PERSIST', KEYS[2])
  return {false, now_ms, unpack(found, 1, 9)}
end

-- Above every earlier token, and above those of a store that lost its data: begins are fewer than microseconds.
local last = tonumber(redis.call('GET', KEYS[2]) or '0')
local token = string.format('%.0f', math.max(last + 1, now_us))
local number = known and attempt + 1 or 1
local kept_ms = ARGV[3] + ARGV[4]

-- The first write is one that a server out of memory refuses; behind another one it would be let through.
redis.call('SET', KEYS[2], token)
redis.call('HSET', KEYS[1],
  'state', 'in_progress',
  'fingerprint', ARGV[1],
  'token', token,
  'attempt', string.format('%.0f', number),
  'holder', ARGV[2],
  'lease_until_ms', string.format('%.0f', now_ms + ARGV[3]),
  'expires_at_ms', string.format('%.0f', now_ms + kept_ms))
redis.call('HDEL', KEYS[1], 'digest', 'result')
redis.call('PEXPIRE', KEYS[1], string.format('%.0f', kept_ms + GRACE_MS))

return {token, number}
