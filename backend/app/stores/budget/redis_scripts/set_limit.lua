-- Sets or removes a limit of a scope.
--
-- KEYS: see the prelude.
-- ARGV: 1 now, "" for the server's; 2 scope; 3 window: 1 total, 2 month, 3 day, 4 hour; 4 amount or "-"
-- Answer: "set"
-- Why atomic: limits and counters of a scope are one value, and two callers may set two of them at once.

local head = call('HMGET', BOOK, '\nnow', '\nnext', '\nhour', '\naudit', ARGV[2])
local now = clock(head[1])
local rare = rarely(now, head)
local of, ids, values = rare.apart(head[5])
if rare.damaged then return say('damaged', now, rare.damaged) end
local limits = { match(of, '^(%S+) (%S+) (%S+) (%S+)$') }
limits[tonumber(ARGV[3])] = ARGV[4]
local after = rare.together(concat(limits, ' '), ids, values)
rare.write({ ARGV[2], after })
if after == rare.EMPTY then call('HDEL', BOOK, ARGV[2]) end
rare.journal('c' .. ARGV[2])
return say('set', now)
