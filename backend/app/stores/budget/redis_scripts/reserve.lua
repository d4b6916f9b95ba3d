-- Takes a hold in every window of every scope, or in none.
--
-- KEYS: see the prelude; 7 is the hold.
-- ARGV: 1 now, "" for the server's; 2 how many ended leases are written down; 3 how much else is cleared away;
--       4 hold id; 5 amount; 6 lease in ms; 7... scopes, sorted
-- Answer: "again": a portion of ended leases was written down, nothing else was done, ask again;
--       "stopped", then since and the reason; "known": how many lines the scopes of a hold have, these, five each as
--       the book has them, in its windows, and the hold; "taken": hours, and the scopes after it; "refused" or "full":
--       hours, and the scopes, and nothing was changed
-- Why atomic: all windows are looked at and all are written with nothing in between, so spent + held <= limit holds for
--       the hold that is granted, whoever else reserves.

local function read()
  return call('HMGET', BOOK, '\nnow', '\nnext', '\nhour', '\naudit', '\nstop', unpack(ARGV, 7))
end

local head = read()
local now = clock(head[1])
if head[5] then return say('stopped', now, head[5]) end
local following, rare = tonumber(head[2] or 0), nil
if head[4] or now >= following then
  rare = rarely(now, head)
  if rare.sweep(tonumber(ARGV[2])) then return say('again', now) end
  if not rare.damaged then rare.clear(tonumber(ARGV[3])) end
  if rare.damaged then return say('damaged', now, rare.damaged) end
end

local id, amount = ARGV[4], tonumber(ARGV[5])
local packed = call('GET', KEYS[7])
if packed then
  rare = rare or rarely(now, head)
  local known = rare.hold_of(packed)
  if known and not rare.is_folded(known) then
    rare.look_at(rare.hour_at(known.created), false)
    local values = call('HMGET', BOOK, unpack(known.scopes))
    for i, scope in ipairs(known.scopes) do
      local _, _, _, _, before = rare.changed(scope, values[i], sub(known.hours, i, i) == '1', 0, 0)
      values[i] = before
      if rare.damaged then return say('damaged', now, rare.damaged) end
    end
    return say('known', now, format('%d\n', 5 * #values) .. concat(values, '\n') .. '\n' .. packed)
  end
  if known then rare.fold(id, known) end
  if rare.damaged then return say('damaged', now, rare.damaged) end
end
if rare then head = read() end

local hour, hour_is_new = head[3] and sub(head[3], 1, 13), false
if not hour or tonumber(sub(head[3], 15)) ~= floor(now / HOUR) then
  rare = rare or rarely(now, head)
  hour, hour_is_new = rare.hour_at(now), true
end
local day = sub(hour, 1, 10)
local plain = unlimited(day)
local answer, hours, befores, afters = 'taken', '', {}, {}
for i = 7, #ARGV do
  local before = head[i - 1]
  local after, room, left, by_hour = simply_changed(before, day, plain, 0, amount, true)
  if not after then
    rare = rare or rarely(now, head)
    rare.look_at(hour, true)
    after, room, left, by_hour, before = rare.changed(ARGV[i], before, nil, 0, amount)
    if rare.damaged then return say('damaged', now, rare.damaged) end
  end
  if amount > left then
    answer = 'refused'
  elseif amount > room and answer == 'taken' then
    answer = 'full'
  end
  hours = hours .. (by_hour and '1' or '0')
  befores[i - 6], afters[i - 6] = before, after
end
if answer ~= 'taken' then return say(answer, now, hours .. '\n' .. concat(befores, '\n')) end

local fields, n = { 'HSET', BOOK, '\nnow', format('%d', now) }, 4
for i = 7, #ARGV do
  fields[n + 1], fields[n + 2] = ARGV[i], rare and rare.put(ARGV[i], afters[i - 6]) or afters[i - 6]
  n = n + 2
end
if hour_is_new then
  fields[n + 1], fields[n + 2] = '\nhour', format('%s %d', hour, floor(now / HOUR))
  n = n + 2
end
local expires = now + ARGV[6]
local next_due = min(rare and rare.following or following, expires)
if next_due ~= following then fields[n + 1], fields[n + 2] = '\nnext', format('%d', next_due) end
call(unpack(fields))
call('SET', KEYS[7], format('h %s 0 %d %d 0 %s\n', ARGV[5], now, expires, hours) .. concat(ARGV, '\n', 7))
call('ZADD', AGENDA, format('%d', expires), 'h' .. id)
call('ZADD', IDS, 0, id)
if rare then
  rare.write()
  rare.journal('h' .. id)
end
return format('taken %d\n%s\n', now, hours) .. concat(afters, '\n')
