-- Sets or removes a limit of a scope.
--
-- KEYS: see the prelude.  ARGV: 1 now, "" for the server's; 2 scope; 3 window: 1 total, 2 month, 3 day, 4 hour; 4 amount or "-"
-- Answer: "set"
-- Why atomic: the limits of a scope are one value, and two callers may set two of them at once.

begin(ARGV[1], call('HMGET', BOOK, '\nnow', '\naudit'))
local limits = { unpack(limits_of(call('HGET', BOOK, ARGV[2]))) }
if damaged then return say('damaged', { damaged }) end
keep_time()
limits[tonumber(ARGV[3])] = ARGV[4]
local value = table.concat(limits, ' ')
if value == '- - - -' then
  call('HDEL', BOOK, ARGV[2])
else
  call('HSET', BOOK, ARGV[2], value)
end
return say('set')
