-- Reads one hold.
--
-- KEYS: see the prelude; 7 is the hold.  ARGV: 1 now, "" for the server's
-- Answer: "unknown"; "hold" and the hold as it is written down
-- Why atomic: the hold and the time by which it counts are of one moment.

local now = clock(call('HGET', BOOK, '\nnow'))
local packed = call('GET', KEYS[7])
if not packed then return say('unknown', now) end
return say('hold', now, packed)
