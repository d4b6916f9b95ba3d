-- Closes a hold: by a bill, without a charge, or as uncertain.
--
-- `key` is the hold's; ARGV[at] settle | release | expire, at + 2 "1" for a correction, which leaves a held hold
-- alone, at + 3 the bill, at + 4 "" or "=" and the note.
-- Answer: "again": see verbs.lua; "unknown"; "hold" and the hold as it was before: what became of it follows from the
--       rules, a conflict, in which nothing was changed, included; "full": how many lines its scopes have, these as for
--       reserve, and the hold: the bill would take a counter beyond 2^53 - 1, and nothing was changed
-- Why atomic: the hold and its counters change together, so no bill counts twice and none is lost.

local function close(key, at)
  local id, verb, bill, note_word = sub(key, ID_AT), ARGV[at], tonumber(ARGV[at + 3]), ARGV[at + 4]
  local packed, rare
  local state, amount, charged, created, expires, closed, hours, lines, note, names, count
  repeat
    packed = holds[key]
    if packed == nil then packed = call('GET', key) end
    state, amount, charged, created, expires, closed, hours, lines =
      match(packed or '', '^([hsre]) (%d+) (%d+) (%d+) (%d+) (%d+) ([01]+)\n(.*)$')
    names, count, note = {}, 0, nil
    if state then
      local noted = find(lines, '\n\n', 1, true)
      if noted then lines, note = sub(lines, 1, noted - 1), sub(lines, noted + 2) end
      for name in string.gmatch(lines, '[^\n]+') do
        count = count + 1
        names[count] = name
      end
    end
    read(names, 1, count)
    if not packed then return told('unknown', now) end
    if not state then return told('damaged', now, 'a hold') end
    amount, expires, closed = tonumber(amount), tonumber(expires), tonumber(closed)
    if (state == 'h' and expires or closed) + KEEP_CLOSED <= now then return told('unknown', now) end
    if rare or (state ~= 'e' and (state ~= 'h' or expires > now)) then break end
    -- Its own lease must be written down before it is corrected, and the others' before a counter is floored.
    rare = by_itself()
    if rare.sweep(to_sweep) then return told('again', now) end
    to_sweep = 0
    if rare.damaged then return told('damaged', now, rare.damaged) end
    forget()
  until false
  if audit then rare = rare or by_itself() end

  local before = format('hold %d\n', now) .. packed
  local remark = note_word ~= '' and sub(note_word, 2) or nil
  if verb == 'expire' and state == 'e' then
    -- The end of a lease leaves no note, so one may still be added.
    if remark and not note then
      rare.write()
      call('SET', key, packed .. '\n\n' .. remark)
      rare.journal('h' .. id)
    end
    return before
  end
  if state == 's' or state == 'r' then return before end
  if ARGV[at + 2] == '1' and state == 'h' then return before end

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

  local hour = hour_line and sub(hour_line, 1, 13)
  if not hour or tonumber(sub(hour_line, 15)) ~= floor(created / HOUR) then
    rare = rare or by_itself()
    hour = rare.hour_at(created)
  end
  local day = sub(hour, 1, 10)
  local may_be_simple = spent >= 0 and uncertain == 0 and overage == 0
  local afters, befores, full = {}, {}, false
  for i = 1, count do
    local name, hourly = names[i], sub(hours, i, i) == '1'
    local scope, room = book[name], nil
    if may_be_simple and scope.day == day and not hourly then
      room = room_of(scope)
    else
      rare = rare or by_itself()
      rare.look_at(hour, false)
      local _
      afters[i], room, _, _, befores[i] =
        rare.changed(name, text_of(scope), hourly, spent, held, { uncertain, overage, 0 })
      if rare.damaged then return told('damaged', now, rare.damaged) end
    end
    if spent + held > room and spent + held > 0 then full = true end
  end
  if full then
    for i = 1, count do befores[i] = befores[i] or text_of(book[names[i]]) end
    return told('full', now, format('%d\n', 5 * count) .. concat(befores, '\n') .. '\n' .. packed)
  end

  local lifted = {}
  for i = 1, count do
    local name, after = names[i], afters[i]
    local scope = book[name]
    if not after then
      scope.spent, scope.held = scope.spent + spent, scope.held + held
      if rare then rare.journal('c' .. name) end
      put(name, scope)
    else
      if spent < 0 then after, lifted[i] = rare.floored(name, after) end
      after = rare.put(name, after)
      if after then
        book[name] = { text = after, is_put = scope.is_put }
        put(name, book[name])
      end
    end
  end
  if closed == 0 then closed = now end
  for i, amounts in pairs(lifted) do
    if amounts[1] then
      local entry = format('u%d ', now) .. id .. '\n' .. names[i]
      rare.enter(entry, 'floor', names[i], tonumber(match(amounts[1], '%d+$')), amounts, 'correction of ' .. id)
    end
  end
  note = remark or note
  put_hold(key, format('%s %d %d %s %d %d %s\n', becomes, amount, charge, created, expires, closed, hours) .. lines
    .. (note and '\n\n' .. note or ''), state == 'h' and CLEARING + closed + KEEP_CLOSED)
  if rare then
    rare.write()
    rare.journal('h' .. id)
  end
  return before
end
