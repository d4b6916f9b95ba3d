-- Adds an entry to the current windows of a scope: a caller's adjustment, a cost, or a reset.
--
-- KEYS: see the prelude.
-- ARGV: 1 now, "" for the server's; 2 how many ended leases are written down; 3 scope; 4 named | cost | reset; 5 id;
--       6 amount, which may be negative (a reset takes from each window what it has spent); 7 "" or the most that spent
--       and held of `total` may become; 8 reason
-- Answer: "again": as for reserve; "known" and the entry that has this name; "above": it would pass the most; "refused":
--       spent would become negative, or a counter pass 2^53 - 1; "added". The last three have hours and the counters as
--       they were before.
-- Why atomic: an id counts once, and what is compared with the most is what is added to.

local scope, kind, amount = ARGV[3], ARGV[4], tonumber(ARGV[6])
local head = call('HMGET', BOOK, '\nnow', '\naudit', scope)
begin(ARGV[1], head)
if kind == 'named' then
  local known = call('HGET', ENTRIES, 'n' .. ARGV[5])
  if known then return say('known', { known }) end
end
if sweep(tonumber(ARGV[2])) then return say('again') end
local scopes, limits = { scope }, { head[3] }
local hours = hours_of(limits, 1)
local ids, removed = windows_at(now)
local fields = fields_of(scopes, ids, hours)
local values = read_counters(fields)
local lines = show(limits, scopes, hours, values, { hours })
local answer, amounts, changed = 'added', {}, {}
for i, field in ipairs(fields) do
  local s, h, rest = counter(values[i])
  if i == 1 and ARGV[7] ~= '' and amount > tonumber(ARGV[7]) - s - h then answer = 'above' end
  local added = kind == 'reset' and -s or amount
  if answer == 'added' and (s + added < 0 or added > MAX - s - h) then answer = 'refused' end
  amounts[i] = ids[i] .. format(' %d', added)
  changed[2 * i - 1], changed[2 * i] = field, format('%d %d%s', s + added, h, rest)
end
if damaged then return say('damaged', { damaged }) end
if answer ~= 'added' then return say(answer, lines) end

keep_time()
if kind == 'reset' then amount = -(counter(values[1])) end
plan_removal(scopes, ids, removed, hours, values)
call('HSET', COUNTERS, unpack(changed))
for _, field in ipairs(fields) do journal({ 'c' .. field }) end
enter((kind == 'named' and 'n' or 'u') .. ARGV[5], kind, scope, amount, amounts, ARGV[8])
return say('added', lines)
