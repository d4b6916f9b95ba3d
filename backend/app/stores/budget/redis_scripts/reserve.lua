-- Takes a hold in every window of every scope, or in none.
--
-- KEYS: see the prelude; 9 is the hold.
-- ARGV: 1 now, "" for the server's; 2 how many ended leases are written down; 3 how much else is cleared away;
--       4 hold id; 5 amount; 6 lease in ms; 7... scopes, sorted
-- Answer: "again": a portion of ended leases was written down, nothing else was done, ask again;
--       "stopped", then since and the reason; "known": how many lines its counters have, its counters, and the hold; "taken": hours,
--       and the counters as they were before; "refused" or "full": the same, and nothing was changed
-- Why atomic: all windows are looked at and all are written with nothing in between, so spent + held <= limit holds for
--       the hold that is granted, whoever else reserves.

local scopes = { unpack(ARGV, 7) }
local head = call('HMGET', BOOK, '\nnow', '\naudit', '\nstop', unpack(scopes))
begin(ARGV[1], head)
if head[3] then return say('stopped', { head[3] }) end
if sweep(tonumber(ARGV[2])) then return say('again') end
clear(tonumber(ARGV[3]))

local id, amount = ARGV[4], tonumber(ARGV[5])
local packed = call('GET', KEYS[9])
local known = packed and hold_of(packed)
if damaged then return say('damaged', { damaged }) end
if known and is_folded(known) then
  keep_time()
  fold(id, known)
  known = nil
end
if known then
  local limits = call('HMGET', BOOK, unpack(known.scopes))
  local values = read_counters(fields_of_hold(known))
  local shown = show(limits, known.scopes, known.hours, values, {})
  return say('known', { #shown, table.concat(shown, '\n'), packed })
end

local limits = {}
for i = 1, #scopes do limits[i] = head[3 + i] end
local hours = hours_of(limits, #scopes)
local ids, removed = windows_at(now)
local fields = fields_of(scopes, ids, hours)
local values, spents, helds, rests = read_parts(fields)
local answer, at, opened = 'taken', 0, false
for i = 1, #scopes do
  local windows = string.sub(hours, i, i) == '1' and 4 or 3
  local of = limits[i] and limits_of(limits[i])
  for j = 1, windows do
    local s, h = spents[at + j], helds[at + j]
    if not values[at + j] then opened = true end
    if of and of[j] ~= '-' and amount > tonumber(of[j]) - s - h then answer = 'refused' end
    if amount > MAX - s - h and answer == 'taken' then answer = 'full' end
  end
  at = at + windows
end
if damaged then return say('damaged', { damaged }) end
local lines = show(limits, scopes, hours, values, { hours })
if answer ~= 'taken' then return say(answer, lines) end

keep_time()
if opened then plan_removal(scopes, ids, removed, hours, values) end
write_counters(fields, values, spents, helds, rests, 0, amount, nil, true)
local expires = format('%d', now + tonumber(ARGV[6]))
call('SET', KEYS[9], format('h %s 0 %d %s 0 %s\n', ARGV[5], now, expires, hours) .. table.concat(scopes, '\n'))
call('ZADD', DUE, expires, id)
call('ZADD', IDS, 0, id)
journal({ 'h' .. id })
return say('taken', lines)
