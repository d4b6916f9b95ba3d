-- Sets, lifts or reads the emergency stop of a tenant.
--
-- KEYS: see the prelude.  ARGV: 1 now, "" for the server's; 2 stop | go | look; 3 reason
-- Answer: "stopped", since when, and the reason; "open" where there is no stop
-- Why atomic: a stop that is there keeps its moment and its reason, whoever else stops.

local head = call('HMGET', BOOK, '\nnow', '\naudit', '\nstop')
begin(ARGV[1], head)
local stop = head[3]
if ARGV[2] == 'stop' and not stop then
  keep_time()
  stop = format('%d\n', now) .. ARGV[3]
  call('HSET', BOOK, '\nstop', stop)
elseif ARGV[2] == 'go' and stop then
  keep_time()
  call('HDEL', BOOK, '\nstop')
  stop = false
end
if not stop then return say('open') end
return say('stopped', { stop })
