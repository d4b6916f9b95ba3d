-- Closes a hold: by a bill, without a charge, or as uncertain.
--
-- KEYS: see the prelude; 9 is the hold.
-- ARGV: 1 now, "" for the server's; 2 how many ended leases are written down; 3 hold id; 4 settle | release | expire;
--       5 the bill; 6 "1" for a correction, which leaves a held hold alone; 7 "" or "=" and the note
-- Answer: "again": as for reserve; "unknown"; "hold" and the hold as it was before: what became of it follows from the
--       rules, a conflict, in which nothing was changed, included; "full": how many lines its counters have, these, and
--       the hold: the bill would take one of them beyond 2^53 - 1, and nothing was changed
-- Why atomic: the hold and its counters change together, so no bill counts twice and none is lost.

local head = call('HMGET', BOOK, '\nnow', '\naudit')
begin(ARGV[1], head)
local id, verb, bill = ARGV[3], ARGV[4], tonumber(ARGV[5])
local packed = call('GET', KEYS[9])
if not packed then return say('unknown') end
local hold = hold_of(packed)
if damaged then return say('damaged', { damaged }) end
if is_folded(hold) then return say('unknown') end
if hold.state == 'e' or (hold.state == 'h' and hold.expires <= now) then
  -- Its own lease must be written down before it is corrected, and the others' before a counter is floored.
  if sweep(tonumber(ARGV[2])) then return say('again') end
  packed = call('GET', KEYS[9])
  hold = hold_of(packed)
end
if damaged then return say('damaged', { damaged }) end

local before = tell('hold', { packed })
local was = hold.state
local note = ARGV[7] ~= '' and string.sub(ARGV[7], 2) or nil
if verb == 'expire' and was == 'e' then
  -- The end of a lease leaves no note, so one may still be added.
  if note and not hold.note then
    keep_time()
    hold.note = note
    call('SET', KEYS[9], packed_hold(hold))
    journal({ 'h' .. id })
  end
  return at_primary(before)
end
if was == 's' or was == 'r' then return at_primary(before) end
if ARGV[6] == '1' and was == 'h' then return at_primary(before) end

local spent, held, uncertain, overage = 0, 0, 0, 0
if was == 'h' then
  held = -hold.amount
else
  spent, uncertain = -hold.amount, -hold.amount
end
local after = { settle = 's', release = 'r', expire = 'e' }
hold.state, hold.charged = after[verb], 0
if verb == 'settle' then
  hold.charged = bill
  spent = spent + bill
  overage = math.max(0, bill - hold.amount)
elseif verb == 'expire' then
  hold.charged = hold.amount
  spent, uncertain = hold.amount, hold.amount
end

local fields = fields_of_hold(hold)
local values, spents, helds, rests = read_parts(fields)
local floors, lifted = {}, false
for i, field in ipairs(fields) do
  local s, h = spents[i], helds[i]
  if spent + held > MAX - s - h and spent + held > 0 then
    local limits = call('HMGET', BOOK, unpack(hold.scopes))
    local shown = show(limits, hold.scopes, hold.hours, values, {})
    return say('full', { #shown, table.concat(shown, '\n'), packed })
  end
  if values[i] and spent < 0 and s + spent < 0 then
    floors[field] = -(s + spent)
    lifted = true
  end
end
if damaged then return say('damaged', { damaged }) end

keep_time()
local others = (uncertain ~= 0 or overage ~= 0) and { uncertain, overage, 0 } or nil
write_counters(fields, values, spents, helds, rests, spent, held, others, false, lifted and floors)
if lifted then
  -- A charge that was forgiven and is now corrected downwards leaves zero, not room that is granted twice.
  local at = 0
  for i, scope in ipairs(hold.scopes) do
    local amounts, first = {}, nil
    for _ = 1, string.sub(hold.hours, i, i) == '1' and 4 or 3 do
      at = at + 1
      local lift = floors[fields[at]]
      if lift then
        first = first or lift
        amounts[#amounts + 1] = string.sub(fields[at], #scope + 2) .. format(' %d', lift)
      end
    end
    if first then
      local entry = format('u%d ', now) .. id .. '\n' .. scope
      enter(entry, 'floor', scope, first, amounts, 'correction of ' .. id)
    end
  end
end
if hold.closed == 0 then
  hold.closed = now
  call('RPUSH', FOLD, format('%d h', now) .. id)
end
if note then hold.note = note end
call('SET', KEYS[9], packed_hold(hold))
if was == 'h' then call('ZREM', DUE, id) end
journal({ 'h' .. id })
return at_primary(before)
