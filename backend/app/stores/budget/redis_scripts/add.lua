-- Adds an entry to the current windows of a scope: a caller's adjustment, a cost, or a reset.
--
-- KEYS: see the prelude.
-- ARGV: 1 now, "" for the server's; 2 how many ended leases are written down; 3 scope; 4 named | cost | reset; 5 id;
--       6 amount, which may be negative (a reset takes from each window what it has spent); 7 "" or the most that spent
--       and held of `total` may become; 8 reason
-- Answer: "again": as for reserve; "known" and the entry that has this name; "above": it would pass the most; "refused":
--       spent would become negative, or a counter pass 2^53 - 1; "added". The last three have hours and the scope as it
--       was before, as for reserve.
-- Why atomic: an id counts once, and what is compared with the most is what is added to.

local scope, kind, amount = ARGV[3], ARGV[4], tonumber(ARGV[6])
local head = call('HMGET', BOOK, '\nnow', '\nnext', '\nhour', '\naudit')
local now = clock(head[1])
local rare = rarely(now, head)
if kind == 'named' then
  local known = call('HGET', ENTRIES, 'n' .. ARGV[5])
  if known then return say('known', now, known) end
end
if rare.sweep(tonumber(ARGV[2])) then return say('again', now) end
if rare.damaged then return say('damaged', now, rare.damaged) end
rare.look_at(rare.hour_at(now), true)
local _, _, _, by_hour, before = rare.changed(scope, call('HGET', BOOK, scope), nil, 0, 0)
if rare.damaged then return say('damaged', now, rare.damaged) end
local limits, ids, values = rare.apart(before)
local answer, amounts, in_all = 'added', {}, 0
for j = 1, by_hour and 4 or 3 do
  local s, h, rest = match(values[j], rare.COUNTER)
  if j == 1 and ARGV[7] ~= '' and amount > ARGV[7] - s - h then answer = 'above' end
  local added = kind == 'reset' and -s or amount
  if answer == 'added' and (s + added < 0 or added > 9007199254740991 - s - h) then answer = 'refused' end
  amounts[j] = format('%s %d', ids[j], added)
  values[j] = format('%d %d%s', s + added, h, rest)
  if j == 1 then in_all = added end
end
local shown = (by_hour and '1' or '0') .. '\n' .. before
if answer ~= 'added' then return say(answer, now, shown) end

rare.write({ scope, rare.put(scope, rare.together(limits, ids, values)) })
rare.enter((kind == 'named' and 'n' or 'u') .. ARGV[5], kind, scope, in_all, amounts, ARGV[8])
return say('added', now, shown)
