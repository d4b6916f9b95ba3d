-- Closes a hold: by a bill, without a charge, or as uncertain.
--
-- KEYS: see the prelude; 7 is the hold.
-- ARGV: 1 now, "" for the server's; 2 how many ended leases are written down; 3 hold id; 4 settle | release | expire;
--       5 the bill; 6 "1" for a correction, which leaves a held hold alone; 7 "" or "=" and the note
-- Answer: "again": as for reserve; "unknown"; "hold" and the hold as it was before: what became of it follows from the
--       rules, a conflict, in which nothing was changed, included; "full": how many lines its scopes have, these as for
--       reserve, and the hold: the bill would take a counter beyond 2^53 - 1, and nothing was changed
-- Why atomic: the hold and its counters change together, so no bill counts twice and none is lost.

local id, verb, bill = ARGV[3], ARGV[4], tonumber(ARGV[5])
local packed, head, now, rare
local state, amount, charged, created, expires, closed, hours, names, note, scopes, count
repeat
  packed = call('GET', KEYS[7])
  state, amount, charged, created, expires, closed, hours, names =
    match(packed or '', '^([hsre]) (%d+) (%d+) (%d+) (%d+) (%d+) ([01]+)\n(.*)$')
  scopes, count, note = {}, 0, nil
  if state then
    local at = string.find(names, '\n\n', 1, true)
    if at then names, note = sub(names, 1, at - 1), sub(names, at + 2) end
    for scope in string.gmatch(names, '[^\n]+') do
      count = count + 1
      scopes[count] = scope
    end
  end
  head = call('HMGET', BOOK, '\nnow', '\nnext', '\nhour', '\naudit', unpack(scopes))
  now = clock(head[1])
  if not packed then return say('unknown', now) end
  if not state then return say('damaged', now, 'a hold') end
  amount, expires, closed = tonumber(amount), tonumber(expires), tonumber(closed)
  if (state == 'h' and expires or closed) + KEEP_CLOSED <= now then return say('unknown', now) end
  if rare or (state ~= 'e' and (state ~= 'h' or expires > now)) then break end
  -- Its own lease must be written down before it is corrected, and the others' before a counter is floored.
  rare = rarely(now, head)
  if rare.sweep(tonumber(ARGV[2])) then return say('again', now) end
  if rare.damaged then return say('damaged', now, rare.damaged) end
until false
if head[4] then rare = rare or rarely(now, head) end

local before = format('hold %d\n', now) .. packed
local remark = ARGV[7] ~= '' and sub(ARGV[7], 2) or nil
if verb == 'expire' and state == 'e' then
  -- The end of a lease leaves no note, so one may still be added.
  if remark and not note then
    rare.write()
    call('SET', KEYS[7], packed .. '\n\n' .. remark)
    rare.journal('h' .. id)
  end
  return at_primary(before)
end
if state == 's' or state == 'r' then return at_primary(before) end
if ARGV[6] == '1' and state == 'h' then return at_primary(before) end

local spent, held, uncertain, overage = 0, 0, 0, 0
if state == 'h' then
  held = -amount
else
  spent, uncertain = -amount, -amount
end
local becomes, charge = 'r', 0
if verb == 'settle' then
  becomes, charge = 's', bill
  spent = spent + bill
  overage = math.max(0, bill - amount)
elseif verb == 'expire' then
  becomes, charge = 'e', amount
  spent, uncertain = amount, amount
end

local hour = head[3] and sub(head[3], 1, 13)
if not hour or tonumber(sub(head[3], 15)) ~= floor(created / HOUR) then
  rare = rare or rarely(now, head)
  hour = rare.hour_at(created)
end
local day = sub(hour, 1, 10)
local plain = unlimited(day)
local simple = spent >= 0 and uncertain == 0 and overage == 0
local afters, befores, full = {}, {}, false
for i = 1, count do
  local hourly, unchanged, after, room = sub(hours, i, i) == '1', head[4 + i], nil, nil
  if simple and not hourly then after, room = simply_changed(unchanged, day, plain, spent, held) end
  if not after then
    rare = rare or rarely(now, head)
    rare.look_at(hour, false)
    local _
    after, room, _, _, unchanged = rare.changed(scopes[i], unchanged, hourly, spent, held, { uncertain, overage, 0 })
    if rare.damaged then return say('damaged', now, rare.damaged) end
  end
  if spent + held > room and spent + held > 0 then full = true end
  afters[i], befores[i] = after, unchanged
end
if full then return say('full', now, format('%d\n', 5 * count) .. concat(befores, '\n') .. '\n' .. packed) end

local lifted = {}
local fields, n = { 'HSET', BOOK, '\nnow', format('%d', now) }, 4
for i = 1, count do
  local after = afters[i]
  if spent < 0 then after, lifted[i] = rare.floored(scopes[i], after) end
  if rare then after = rare.put(scopes[i], after) end
  if after then
    fields[n + 1], fields[n + 2] = scopes[i], after
    n = n + 2
  end
end
if closed == 0 then closed = now end
call(unpack(fields))
for i, amounts in pairs(lifted) do
  if amounts[1] then
    local entry = format('u%d ', now) .. id .. '\n' .. scopes[i]
    rare.enter(entry, 'floor', scopes[i], tonumber(match(amounts[1], '%d+$')), amounts, 'correction of ' .. id)
  end
end
note = remark or note
call('SET', KEYS[7], format('%s %d %d %s %d %d %s\n', becomes, amount, charge, created, expires, closed, hours) .. names
  .. (note and '\n\n' .. note or ''))
if state == 'h' then call('ZADD', AGENDA, format('%d', CLEARING + closed + KEEP_CLOSED), 'h' .. id) end
if rare then
  rare.write()
  rare.journal('h' .. id)
end
return before
