-- Reads one hold.
--
-- KEYS: see the prelude; 9 is the hold.  ARGV: 1 now, "" for the server's
-- Answer: "unknown"; "hold" and the hold as it is written down
-- Why atomic: the hold and the time by which it counts are of one moment.

begin(ARGV[1], call('HMGET', BOOK, '\nnow', '\naudit'))
local packed = call('GET', KEYS[9])
if not packed then return say('unknown') end
return say('hold', { packed })
