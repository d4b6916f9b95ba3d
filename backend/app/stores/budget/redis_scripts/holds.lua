-- Reads a portion of the holds, in the order of their ids.
--
-- KEYS: see the prelude.
-- ARGV: 1 now, "" for the server's; 2 "" or the id behind which it begins; 3 how many are looked at; 4 how many are given;
--       5 "" or the state h | s | r | e as it counts now; 6 "" or a scope
-- Answer, an array: now; the id that was looked at last, "" at the end; then id and hold by turns. Where "held" is asked
--       for, and no more holds are open than are looked at, all of them that match, in no order.
-- Why atomic: each hold is as it was in one moment.

local head = call('HMGET', BOOK, '\nnow', '\nnext', '\nhour', '\naudit')
local now = clock(head[1])
local rare = rarely(now, head)
local prefix = sub(BOOK, 1, -12) .. 'hold:'
local most, give, state, scope = tonumber(ARGV[3]), tonumber(ARGV[4]), ARGV[5], ARGV[6]
local ids, whole
local open_from, open_to = '(' .. format('%d', now), format('(%d', CLEARING)
if state == 'h' and call('ZCOUNT', AGENDA, open_from, open_to) <= most then
  ids, whole = call('ZRANGEBYSCORE', AGENDA, open_from, open_to), true
  for i, member in ipairs(ids) do ids[i] = sub(member, 2) end
else
  ids = call('ZRANGEBYLEX', IDS, ARGV[2] == '' and '-' or '(' .. ARGV[2], '+', 'LIMIT', 0, most)
end
local answer = { format('%d', now), '' }
for i, id in ipairs(ids) do
  local packed = call('GET', prefix .. id)
  if packed then
    local hold = rare.hold_of(packed)
    if not hold then return { 'damaged', id } end
    local counts_as = (hold.state == 'h' and hold.expires <= now) and 'e' or hold.state
    local fits = not rare.is_folded(hold) and (state == '' or state == counts_as)
    if fits and scope ~= '' then
      fits = false
      for _, name in ipairs(hold.scopes) do fits = fits or name == scope end
    end
    if fits then
      answer[#answer + 1] = id
      answer[#answer + 1] = packed
      if not whole and #answer - 2 == 2 * give then
        answer[2] = id
        return at_primary(answer)
      end
    end
  end
  if not whole and i == most then answer[2] = id end
end
return at_primary(answer)
