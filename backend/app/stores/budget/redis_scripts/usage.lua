-- Reads the current windows of a scope.
--
-- KEYS: see the prelude.  ARGV: 1 now, "" for the server's; 2 how many ended leases are written down; 3 scope
-- Answer: "again": as for reserve; "usage": hours, and the scope, as for reserve
-- Why atomic: spent and held are of one moment.

local head = call('HMGET', BOOK, '\nnow', '\nnext', '\nhour', '\naudit')
local now = clock(head[1])
local rare = rarely(now, head)
if rare.sweep(tonumber(ARGV[2])) then return say('again', now) end
if rare.damaged then return say('damaged', now, rare.damaged) end
rare.look_at(rare.hour_at(now), true)
local _, _, _, by_hour, shown = rare.changed(ARGV[3], call('HGET', BOOK, ARGV[3]), nil, 0, 0)
if rare.damaged then return say('damaged', now, rare.damaged) end
return say('usage', now, (by_hour and '1' or '0') .. '\n' .. shown)
