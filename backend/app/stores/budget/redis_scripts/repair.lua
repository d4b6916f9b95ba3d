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

local head = call('HMGET', BOOK, '\nnow', '\nnext', '\nhour', '\naudit', '\nrepairs')
local now = clock(head[1])
local rare = rarely(now, head)
if (head[5] or '0') ~= ARGV[2] then return say('moved', now) end

-- Calls `change` for the counter of each triple, with what is added to spent and held.
local function each(change)
  for i = 3, #ARGV, 3 do
    local scope, id = match(ARGV[i], '^([^\n]*)\n(.*)$')
    rare.rewrite(scope, id, function(value) return change(value, ARGV[i + 1], ARGV[i + 2]) end)
  end
end

local opened = false
rare.write({ '\nrepairs', format('%d', ARGV[2] + 1) })
rare.look_at(rare.hour_at(now), true)
for i = 3, #ARGV, 3 do
  local scope = match(ARGV[i], '^[^\n]*')
  local packed = call('HGET', BOOK, scope)
  local _, ids = rare.apart(packed)
  if not rare.damaged and not ids[1] then
    rare.write({ scope, rare.put(scope, (rare.changed(scope, packed, nil, 0, 0))) })
    opened = true
  end
end
each(function(value)
  opened = opened or not value
  return value or '0 0 0 0 0'
end)
if rare.damaged then return say('damaged', now, rare.damaged) end
if opened then return say('opened', now) end
each(function(value, spent, held)
  local s, h, rest = match(value, rare.COUNTER)
  return format('%d %d%s', s + spent, h + held, rest)
end)
return say('repaired', now)
