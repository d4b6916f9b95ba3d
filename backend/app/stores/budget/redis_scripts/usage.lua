-- Reads the current windows of a scope.
--
-- KEYS: see the prelude.  ARGV: 1 now, "" for the server's; 2 how many ended leases are written down; 3 scope
-- Answer: "again": as for reserve; "usage": hours, then its counters
-- Why atomic: spent and held are of one moment.

local scopes = { ARGV[3] }
local head = call('HMGET', BOOK, '\nnow', '\naudit', ARGV[3])
begin(ARGV[1], head)
if sweep(tonumber(ARGV[2])) then return say('again') end
if damaged then return say('damaged', { damaged }) end
local limits = { head[3] }
local hours = hours_of(limits, 1)
local values = read_counters(fields_of(scopes, windows_at(now), hours))
return say('usage', show(limits, scopes, hours, values, { hours }))
