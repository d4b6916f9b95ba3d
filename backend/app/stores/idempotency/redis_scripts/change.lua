-- complete, abandon, heartbeat: what the owner of a key does to its record.
--
-- KEYS[1]  the record of the key, see begin.lua
-- KEYS[2]  the last token of the tenant
-- ARGV[1]  the owner's token
-- ARGV[2]  the state that the record gets: completed, free, in_progress
-- ARGV[3]  its lease, in milliseconds from now; '' leaves it as it is
-- ARGV[4]  how long it is kept, in milliseconds from now
-- ARGV[5]  SHA-256 of the result; '' for none
-- ARGV[6]  the result; looked at only with a digest
-- ARGV[7]  the time in milliseconds, for tests; '' for the server's
--
-- Result   {time in ms, then the record as it was found: its fields in the order of begin.lua, without the result; nil
--          where absent}. It was changed if it was in progress under this token; nothing was changed otherwise.
--
-- Atomic because between the look at the token and the change nobody may take the key over.

local GRACE_MS = 60000 -- as in begin.lua

local clock = redis.call('TIME')
local now_ms = ARGV[7] == '' and clock[1] * 1000 + math.floor(clock[2] / 1000) or tonumber(ARGV[7])

local found = redis.call('HMGET', KEYS[1], 'state', 'fingerprint', 'token', 'attempt', 'holder', 'lease_until_ms',
  'expires_at_ms', 'digest')
local known = found[1] and (tonumber(found[7]) or math.huge) > now_ms
local is_owned = known and found[1] == 'in_progress' and found[3] == ARGV[1]

if is_owned then
  -- The first write is one that a server out of memory refuses: then nothing is changed.
  redis.call('HSET', KEYS[1], 'state', ARGV[2], 'expires_at_ms', string.format('%.0f', now_ms + ARGV[4]))
  if ARGV[3] ~= '' then
    redis.call('HSET', KEYS[1], 'lease_until_ms', string.format('%.0f', now_ms + ARGV[3]))
  end
  if ARGV[5] ~= '' then
    redis.call('HSET', KEYS[1], 'digest', ARGV[5], 'result', ARGV[6])
  end
  redis.call('PEXPIRE', KEYS[1], string.format('%.0f', ARGV[4] + GRACE_MS))
else
  -- A write without effect: a replica refuses it, and so does not tell an owner that it lost what it has.
  redis.call('PERSIST', KEYS[2])
end

if known then
  return {now_ms, unpack(found, 1, 8)}
end
return {now_ms}
