-- What most runs do not need, behind the prelude and the counters: windows that change, limits per hour, late bills,
-- leases that have ended, what is folded, entries, and the journal of an audit.

-- Makes these functions. `head` is "\nnow", "\nnext", "\nhour" and "\naudit" of the book. What they find is in the
-- table that they are in: `damaged` names a value that cannot be read; `following` is the time before which nothing is
-- due.
local function rarely(now, head)
  local MAX = 9007199254740991
  local EMPTY = '0 0 0 0 0 0\n-\n- - - -\n-\n0 0 0 0 0 0 0 0 0'
  local PREFIX = sub(BOOK, 1, -12) .. 'hold:'
  local COUNTER = '^(%-?%d+) (%-?%d+)( %-?%d+ %-?%d+ %-?%d+)$'

  local rare = { following = tonumber(head[2] or 0), EMPTY = EMPTY, COUNTER = COUNTER }
  local auditing = head[4] and tonumber(head[4]) > now
  local lapsed = head[4] and not auditing
  -- The windows that are looked at. Those of the present may be opened; others may have been removed after their 35
  -- days, and must not come back with a part.
  local hour, day, month, opening
  local moved, later = {}, {}

  -- While an audit is under way: notes what was changed, under a number that only grows.
  function rare.journal(member)
    if auditing then call('ZADD', JOURNAL, call('HINCRBY', BOOK, '\nchanges', 1), member) end
  end

  -- Writes fields of the book, the time with them, and what goes with these. It is the first write of every script that
  -- writes, and it needs memory: a server that has none refuses it.
  function rare.write(fields)
    call('HSET', BOOK, '\nnow', format('%d', now), unpack(fields or {}))
    for _, command in ipairs(later) do call(unpack(command)) end
    later = {}
    if lapsed then
      call('HDEL', BOOK, '\naudit')
      call('DEL', JOURNAL)
      lapsed = false
    end
  end

  function rare.hold_of(packed)
    local state, amount, charged, created, expires, closed, hours, rest =
      match(packed, '^([hsre]) (%d+) (%d+) (%d+) (%d+) (%d+) ([01]+)\n(.*)$')
    if not state then
      rare.damaged = 'a hold'
      return nil
    end
    local names, note = match(rest, '^(.-)\n\n(.*)$')
    local scopes = {}
    for scope in string.gmatch(names or rest, '[^\n]+') do scopes[#scopes + 1] = scope end
    return {
      state = state, amount = tonumber(amount), charged = tonumber(charged), created = tonumber(created),
      expires = tonumber(expires), closed = tonumber(closed), hours = hours, scopes = scopes, names = names or rest,
      note = note,
    }
  end

  function rare.is_folded(hold)
    local closed = hold.closed
    if hold.state == 'h' then
      if hold.expires > now then return false end
      closed = hold.expires
    end
    return closed + KEEP_CLOSED <= now
  end

  -- Returns the window id of the hour of a moment: its first ten characters are that of the day, seven that of the
  -- month.
  function rare.hour_at(ms)
    local hours = floor(ms / HOUR)
    -- Days since 1970 as a date of the Gregorian calendar; the year begins in March, so that leap days come last.
    local z = floor(hours / 24) + 719468
    local era = floor(z / 146097)
    local doe = z - era * 146097
    local yoe = floor((doe - floor(doe / 1460) + floor(doe / 36524) - floor(doe / 146096)) / 365)
    local doy = doe - (365 * yoe + floor(yoe / 4) - floor(yoe / 100))
    local mp = floor((5 * doy + 2) / 153)
    local of_year = mp < 10 and mp + 3 or mp - 9
    local year = yoe + era * 400 + (of_year <= 2 and 1 or 0)
    return format('%04d-%02d-%02dT%02d', year, of_year, doy - floor((153 * mp + 2) / 5) + 1, hours % 24)
  end

  -- When the counter of a window may be removed: 35 days after its end.
  local function removal(id)
    local y, m, d, h = match(id, '^(%d+)-(%d+)-?(%d*)T?(%d*)$')
    if d == '' then m, d = m + 1, 1 end
    if tonumber(m) <= 2 then y, m = y - 1, m + 12 end
    local days = y * 365 + floor(y / 4) - floor(y / 100) + floor(y / 400) + floor((153 * (m - 3) + 2) / 5) + d - 719469
    if h ~= '' then return (days * 24 + h + 1) * HOUR + 35 * 24 * HOUR end
    return (days + (#id == 10 and 1 or 0) + 35) * 24 * HOUR
  end

  function rare.look_at(in_hour, may_open)
    hour, day, month, opening = in_hour, sub(in_hour, 1, 10), sub(in_hour, 1, 7), may_open
  end

  -- Takes a scope apart: its limits, and by window the ids of its counters and their values, "spent held uncertain
  -- overage base", false where there is none.
  function rare.apart(packed)
    local s, h, ms, mh, ds, dh, of, limits, last, r1, r2, r3 = match(packed or EMPTY,
      '^(%-?%d+) (%-?%d+) (%-?%d+) (%-?%d+) (%-?%d+) (%-?%d+)\n([^\n]+)\n([%d-]+ [%d-]+ [%d-]+ [%d-]+)\n([^\n]+)\n'
      .. '(%-?%d+ %-?%d+ %-?%d+) (%-?%d+ %-?%d+ %-?%d+) (%-?%d+ %-?%d+ %-?%d+)$')
    local in_hour, value = match(last or '', '^(%d+%-%d+%-%d+T%d+) (%S+ %S+ %S+ %S+ %S+)$')
    if not r3 or (last ~= '-' and not match(value or '', COUNTER)) then
      rare.damaged = 'a counter'
      return
    end
    local in_month = of ~= '-' and of ~= 'total' and sub(of, 1, 7)
    local ids = { of ~= '-' and 'total', in_month, #of == 10 and of, in_hour or false }
    return limits, ids, {
      ids[1] and format('%d %d %s', s, h, r1), ids[2] and format('%d %d %s', s - ms, h - mh, r2),
      ids[3] and format('%d %d %s', s - ds, h - dh, r3), value or false,
    }
  end

  function rare.together(limits, ids, values)
    local s, h, r1 = match(values[1] or '0 0 0 0 0', '^(%S+) (%S+) (.*)$')
    local ms, mh, r2 = match(values[2] or '0 0 0 0 0', '^(%S+) (%S+) (.*)$')
    local ds, dh, r3 = match(values[3] or '0 0 0 0 0', '^(%S+) (%S+) (.*)$')
    local of, last = ids[3] or ids[2] or ids[1] or '-', ids[4] and ids[4] .. ' ' .. values[4] or '-'
    return format('%d %d %d %d %d %d\n', s, h, s - ms, h - mh, s - ds, h - dh)
      .. concat({ of, limits, last, r1 .. ' ' .. r2 .. ' ' .. r3 }, '\n')
  end

  -- Returns a scope after a change of each counter that is looked at: what is added to spent, to held, and to
  -- uncertain, overage and base as `others`. Behind it: the least that a counter may still take below 2^53 and below
  -- its limits, whether its hours are counted (`hourly`, or by its limits where that is nil), and the scope before,
  -- with these counters. What the scope had in their place is kept until it is put.
  function rare.changed(scope, packed, hourly, spent, held, others)
    local limits, ids, values = rare.apart(packed)
    if rare.damaged then return end
    if hourly == nil then hourly = sub(limits, -2) ~= ' -' end
    local replaced = { absent = not ids[1] }
    for j, id in ipairs({ 'total', month, day, hourly and hour or ids[4] }) do
      if id ~= ids[j] then
        local elsewhere = not opening and call('HGET', ENDED, scope .. '\n' .. id)
        if elsewhere and not match(elsewhere, COUNTER) then
          rare.damaged = 'a counter'
          return
        end
        replaced[j] = { id = ids[j], value = values[j], gone = not opening and not elsewhere }
        ids[j], values[j] = id, elsewhere or '0 0 0 0 0'
      end
    end
    moved[scope] = replaced
    local before = rare.together(limits, ids, values)
    local room, left, of = MAX, MAX, { match(limits, '^(%S+) (%S+) (%S+) (%S+)$') }
    for j = 1, hourly and 4 or 3 do
      local s, h, u, o, b = match(values[j], '^(%-?%d+) (%-?%d+) (%-?%d+) (%-?%d+) (%-?%d+)$')
      room = min(room, MAX - s - h)
      if of[j] ~= '-' then left = min(left, of[j] - s - h) end
      if others then u, o, b = u + others[1], o + others[2], b + others[3] end
      values[j] = format('%d %d %d %d %d', s + spent, h + held, u, o, b)
    end
    return rare.together(limits, ids, values), room, left, hourly, before
  end

  -- Lifts what is below zero after a correction: a charge that was forgiven and is now corrected downwards leaves zero,
  -- not room that is granted twice. Returns the scope, and what was added by window, "id amount".
  function rare.floored(scope, after)
    local limits, ids, values = rare.apart(after)
    local amounts = {}
    for j = 1, 4 do
      local lift, rest = match(values[j] or '', '^%-(%d+)( .*)$')
      if lift and not (moved[scope][j] and moved[scope][j].gone) then
        amounts[#amounts + 1] = ids[j] .. ' ' .. lift
        values[j] = '0' .. rest
      end
    end
    return rare.together(limits, ids, values), amounts
  end

  -- Returns a scope as it belongs into the book, nil where it does not; counters that do not are written with the book.
  function rare.put(scope, after)
    rare.journal('c' .. scope)
    local replaced = moved[scope]
    if not replaced then return after end
    moved[scope] = nil
    local limits, ids, values = rare.apart(after)
    for j = 1, 4 do
      local was = replaced[j]
      local field = scope .. '\n' .. tostring(was and (opening and was.id or ids[j]))
      if was and opening then
        if was.id then
          later[#later + 1] = { 'HSET', ENDED, field, was.value }
          rare.journal('w' .. field)
        end
        if j > 1 then
          local at = format('%d', CLEARING + removal(ids[j]))
          later[#later + 1] = { 'ZADD', AGENDA, at, 'c' .. scope .. '\n' .. ids[j] }
        end
      elseif was then
        if not was.gone then
          later[#later + 1] = { 'HSET', ENDED, field, values[j] }
          rare.journal('w' .. field)
        end
        ids[j], values[j] = was.id, was.value
      end
    end
    if replaced.absent and not opening then return nil end
    return rare.together(limits, ids, values)
  end

  -- Adds to every counter of a hold, in the windows in which it was reserved.
  local function charge(hold, spent, held, others)
    rare.look_at(rare.hour_at(hold.created), false)
    local values = call('HMGET', BOOK, unpack(hold.scopes))
    for i, scope in ipairs(hold.scopes) do
      values[i] = rare.changed(scope, values[i], sub(hold.hours, i, i) == '1', spent, held, others)
      if rare.damaged then return end
    end
    local fields = {}
    for i, scope in ipairs(hold.scopes) do
      local after = rare.put(scope, values[i])
      if after then fields[#fields + 1], fields[#fields + 2] = scope, after end
    end
    rare.write(fields)
  end

  -- Changes one counter, in the book or behind it; `change` takes its value, nil where it is not there, and returns the
  -- new one, or nil where it is to be removed or left alone.
  function rare.rewrite(scope, id, change)
    local limits, ids, values = rare.apart(call('HGET', BOOK, scope))
    if rare.damaged then return end
    for j = 1, 4 do
      if ids[j] == id then
        values[j] = change(values[j]) or false
        ids[j] = values[j] and id
        rare.write({ scope, rare.together(limits, ids, values) })
        rare.journal('c' .. scope)
        return
      end
    end
    local field = scope .. '\n' .. id
    local found = call('HGET', ENDED, field)
    local value = change(found or nil)
    rare.write()
    if value then
      call('HSET', ENDED, field, value)
    elseif found then
      call('HDEL', ENDED, field)
    end
    rare.journal('w' .. field)
  end

  -- Removes a closed hold; what it charged stays, as part of the base.
  function rare.fold(id, hold)
    if hold.charged > 0 then
      charge(hold, 0, 0, { 0, 0, hold.charged })
      if rare.damaged then return end
    end
    rare.write()
    call('DEL', PREFIX .. id)
    call('ZREM', IDS, id)
    rare.journal('h' .. id)
  end

  -- Writes down at most `portion` leases that have ended, oldest first; says whether there are more.
  function rare.sweep(portion)
    if now < rare.following then return false end
    local due = call('ZRANGEBYSCORE', AGENDA, '-inf', format('%d', now), 'LIMIT', 0, portion + 1)
    for i = 1, min(#due, portion) do
      local id = sub(due[i], 2)
      local packed = call('GET', PREFIX .. id)
      local hold = packed and rare.hold_of(packed)
      if rare.damaged then return false end
      if hold and hold.state == 'h' then
        charge(hold, hold.amount, -hold.amount, { hold.amount, 0, 0 })
        if rare.damaged then return false end
        call('SET', PREFIX .. id, format('e %d %d %d %d %d %s\n', hold.amount, hold.amount, hold.created, hold.expires,
          hold.expires, hold.hours) .. hold.names)
        call('ZADD', AGENDA, format('%d', CLEARING + hold.expires + KEEP_CLOSED), due[i])
        rare.journal('h' .. id)
      else
        rare.write()
        call('ZREM', AGENDA, due[i])
      end
    end
    return #due > portion
  end

  local function fold_entry(id)
    local packed = call('HGET', ENTRIES, 'u' .. id)
    if not packed then return end
    local scope, amounts = match(packed, '^[^\n]*\n([^\n]*)\n([^\n]*)\n')
    if not scope then
      rare.damaged = 'an adjustment'
      return
    end
    -- All are read before one is written: an entry is folded whole, or not at all.
    for writing = 0, 1 do
      for window, amount in string.gmatch(amounts, '(%S+) (%-?%d+)') do
        rare.rewrite(scope, window, function(value)
          local before, base = match(value or '', '^(%-?%d+ %-?%d+ %-?%d+ %-?%d+ )(%-?%d+)$')
          if value and not base then rare.damaged = 'a counter' end
          if not base or writing == 0 then return value end
          return before .. format('%d', base + amount)
        end)
        if rare.damaged then return end
      end
    end
    call('HDEL', ENTRIES, 'u' .. id)
    rare.journal('eu' .. id)
  end

  -- Folds and removes at most `portion` of what was closed long ago, and finds when the next thing is due.
  function rare.clear(portion)
    if now < rare.following then return end
    local from = format('%d', CLEARING)
    local old = call('ZRANGEBYSCORE', AGENDA, from, format('%d', CLEARING + now), 'LIMIT', 0, portion)
    for _, member in ipairs(old) do
      local kind, name = sub(member, 1, 1), sub(member, 2)
      if kind == 'u' then
        fold_entry(name)
      elseif kind == 'c' then
        local scope, id = match(name, '^([^\n]*)\n(.*)$')
        rare.rewrite(scope, id, function() return nil end)
      else
        local packed = call('GET', PREFIX .. name)
        local hold = packed and rare.hold_of(packed)
        if hold then rare.fold(name, hold) end
      end
      if rare.damaged then return end
      rare.write()
      call('ZREM', AGENDA, member)
    end

    local function earliest(first, last, behind)
      local found = call('ZRANGEBYSCORE', AGENDA, first, last, 'WITHSCORES', 'LIMIT', 0, 1)
      return found[2] and tonumber(found[2]) - behind or MAX
    end
    rare.following = min(earliest('-inf', '(' .. from, 0), earliest(from, '+inf', CLEARING))
  end

  -- Writes an entry; its amounts are added to the counters by whoever calls.
  function rare.enter(field, kind, scope, amount, amounts, reason)
    local value = format('%s %d %d\n', kind, amount, now) .. scope .. '\n' .. concat(amounts, ' ') .. '\n' .. reason
    call('HSET', ENTRIES, field, value)
    if sub(field, 1, 1) == 'u' then call('ZADD', AGENDA, format('%d', CLEARING + now + KEEP_CLOSED), field) end
    rare.journal('e' .. field)
  end

  return rare
end
