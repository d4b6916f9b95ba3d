-- Takes a hold in every window of every scope, or in none.
--
-- `key` is the hold's; ARGV[at + 2] the lease in ms, at + 3 the amount, at + 4 to `last` the scopes, sorted.
-- Answer: "again": see verbs.lua; "stopped", then since and the reason; "known": how many lines the scopes of a hold
--       have, these, five each as the book has them, in its windows, and the hold; "taken": hours, and the scopes after
--       it; "refused" or "full": hours, and the scopes, and nothing was changed
-- Why atomic: all windows are looked at and all are written with nothing in between, so spent + held <= limit holds for
--       the hold that is granted, whoever else reserves.

local function reserve(key, at, last)
  local lease, amount, first = ARGV[at + 2], ARGV[at + 3], at + 4
  read(ARGV, first, last)
  if stop then return told('stopped', now, stop) end
  local rare
  if audit or now >= next_due then
    rare = by_itself()
    if rare.sweep(to_sweep) then return told('again', now) end
    to_sweep = 0
    if not rare.damaged then rare.clear(to_clear) end
    to_clear = 0
    if rare.damaged then return told('damaged', now, rare.damaged) end
  end

  local packed = holds[key]
  if packed == nil then packed = call('GET', key) end
  if packed then
    rare = rare or by_itself()
    local known = rare.hold_of(packed)
    if known and not rare.is_folded(known) then
      rare.look_at(rare.hour_at(known.created), false)
      local values = call('HMGET', BOOK, unpack(known.scopes))
      for i, scope in ipairs(known.scopes) do
        local _, _, _, _, before = rare.changed(scope, values[i], sub(known.hours, i, i) == '1', 0, 0)
        values[i] = before
        if rare.damaged then return told('damaged', now, rare.damaged) end
      end
      return told('known', now, format('%d\n', 5 * #values) .. concat(values, '\n') .. '\n' .. packed)
    end
    if known then rare.fold(sub(key, ID_AT), known) end
    if rare.damaged then return told('damaged', now, rare.damaged) end
  end
  if rare then
    forget()
    read(ARGV, first, last)
  end

  local hour, hour_is_new = hour_line and sub(hour_line, 1, 13), false
  if not hour or tonumber(sub(hour_line, 15)) ~= floor(now / HOUR) then
    rare = rare or by_itself()
    hour, hour_is_new = rare.hour_at(now), true
  end
  local day = sub(hour, 1, 10)
  local answer, hours, befores, afters, asked = 'taken', '', {}, {}, tonumber(amount)
  for i = 1, last - first + 1 do
    local name = ARGV[first + i - 1]
    local scope, by_hour, room, left = book[name], false, nil, nil
    if scope.day == day then
      room, left = room_of(scope)
    else
      rare = rare or by_itself()
      rare.look_at(hour, true)
      afters[i], room, left, by_hour, befores[i] = rare.changed(name, text_of(scope), nil, 0, asked)
      if rare.damaged then return told('damaged', now, rare.damaged) end
    end
    if asked > left then
      answer = 'refused'
    elseif asked > room and answer == 'taken' then
      answer = 'full'
    end
    hours = hours .. (by_hour and '1' or '0')
  end
  if answer ~= 'taken' then
    for i = 1, last - first + 1 do befores[i] = befores[i] or text_of(book[ARGV[first + i - 1]]) end
    return told(answer, now, hours .. '\n' .. concat(befores, '\n'))
  end

  for i = 1, last - first + 1 do
    local name, after = ARGV[first + i - 1], afters[i]
    local scope = book[name]
    if after then
      scope = { text = rare.put(name, after), is_put = scope.is_put }
      book[name] = scope
    else
      scope.held = scope.held + asked
      afters[i] = text_of(scope)
      if rare then rare.journal('c' .. name) end
    end
    put(name, scope)
  end
  if hour_is_new then
    hour_line, hour_put = format('%s %d', hour, floor(now / HOUR)), true
  end
  local expires = now + lease
  local following = min(rare and rare.following or next_due, expires)
  if following ~= next_due then next_due, next_put = following, true end
  put_hold(key, format('h %s 0 %d %d 0 %s\n', amount, now, expires, hours) .. concat(ARGV, '\n', first, last),
    expires)
  put_ids[#put_ids + 1], put_ids[#put_ids + 2] = 0, sub(key, ID_AT)
  if rare then
    rare.write()
    rare.journal('h' .. sub(key, ID_AT))
  end
  return format('taken %d\n%s\n', now, hours) .. concat(afters, '\n')
end
