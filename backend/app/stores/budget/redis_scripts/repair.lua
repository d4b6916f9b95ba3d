-- Adds to counters what an audit has proved to be missing.
--
-- KEYS: see the prelude.
-- ARGV: 1 now, "" for the server's; 2 repairs so far, as the audit saw them; then triples of counter field, what is added
--       to spent, what is added to held
-- Answer: "repaired"; "moved": somebody else has repaired since, and nothing was changed; "opened": counters were not
--       there, and are with nothing in them; nothing was added: audit again
-- Why atomic: a verb changes a counter and its entry together, so what is missing does not change by it; only another
--       repair does, and the count of them tells. A verb that closes leaves a counter alone which is not there: what is
--       missing in one is known only from when it is.

begin(ARGV[1], call('HMGET', BOOK, '\nnow', '\naudit'))
if (call('HGET', BOOK, '\nrepairs') or '0') ~= ARGV[2] then return say('moved') end
keep_time()
call('HINCRBY', BOOK, '\nrepairs', 1)
local opened = false
for i = 3, #ARGV, 3 do
  if not call('HGET', COUNTERS, ARGV[i]) then
    add({ ARGV[i] }, 0, 0, nil, true)
    opened = true
  end
end
if opened then return say('opened') end
for i = 3, #ARGV, 3 do
  add({ ARGV[i] }, tonumber(ARGV[i + 1]), tonumber(ARGV[i + 2]))
end
return say('repaired')
