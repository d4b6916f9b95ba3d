-- Sets, lifts or reads the emergency stop of a tenant.
--
-- KEYS: see the prelude.  ARGV: 1 now, "" for the server's; 2 stop | go | look; 3 reason
-- Answer: "stopped", since when, and the reason; "open" where there is no stop
-- Why atomic: a stop that is there keeps its moment and its reason, whoever else stops.

local head = call('HMGET', BOOK, '\nnow', '\nstop')
local now, stop = clock(head[1]), head[2]
if ARGV[2] == 'stop' and not stop then
  stop = format('%d\n', now) .. ARGV[3]
  call('HSET', BOOK, '\nnow', format('%d', now), '\nstop', stop)
elseif ARGV[2] == 'go' and stop then
  call('HSET', BOOK, '\nnow', format('%d', now))
  call('HDEL', BOOK, '\nstop')
  stop = false
end
if not stop then return say('open', now) end
return say('stopped', now, stop)
