-- The head of every budget script: a tenant's keys, the time, windows, counters, holds, and what is due.
--
-- KEYS, all in one hash slot, `nova:{tenant}:...`:
--   1 budget           hash: scope -> "total month day hour", its limits, "-" for none; "\nnow", "\nstop", "\naudit",
--                      "\nrepairs" (no scope has a line feed in its name): the latest time, the emergency stop, until
--                      when changes are journalled, how often counters were repaired
--   2 budget:counters  hash: scope "\n" window id -> "spent held uncertain overage base"
--   3 budget:due       zset: hold id -> end of its lease, of holds that are held
--   4 budget:ids       zset, all scores 0: the id of every hold, so that they can be listed in order
--   5 budget:fold      list: "ms h" hold id, "ms u" entry id, of what is closed, oldest first
--   6 budget:old       zset: scope "\n" window id -> when that counter may be removed
--   7 budget:entries   hash: "n" id (named by a caller) or "u" id -> "kind amount ms\nscope\nwindow amount ...\nreason"
--   8 budget:journal   zset: "h" hold id, "e" entry, "c" counter -> number of its last change, while an audit is under way
--   9 hold:<id>        string: "state amount charged created expires closed hours\nscope\n...\nscope", and where something
--                      was noted "\n\n" and the note; hours has a 1 for each scope that had a limit per hour
-- Only what is due touches holds that are not in KEYS; their keys are in the same slot.
--
-- Units: microcents, ms since 1970 UTC. Amounts are exact as numbers up to 2^53 - 1 and are written by '%d' only: tostring
-- and .. lose digits. No sum of a limit's parts is formed, because beside 2^53 it would be rounded.
-- Answers are one string of lines, because a client parses one faster than thirty; the first line is what happened and
-- the time. Why atomic: a script runs alone, so nothing comes between reading a counter and writing it.

local BOOK, COUNTERS, DUE, IDS, FOLD, OLD, ENTRIES, JOURNAL = unpack(KEYS, 1, 8)
local HOLD = string.sub(BOOK, 1, -7) .. 'hold:'

local MAX = 9007199254740991
local DAY = 86400000
local KEEP_CLOSED = 7 * DAY
local KEEP_WINDOWS = 35 * DAY

local now, latest, auditing, lapsed, damaged
local call, format, match, floor = redis.call, string.format, string.match, math.floor

-- Takes the time of the caller (tests) or the server's; it never goes back. `head` is HMGET BOOK "\nnow" "\naudit" ...
local function begin(given, head)
  if given ~= '' then
    now = tonumber(given)
  else
    local time = call('TIME')
    now = time[1] * 1000 + floor(time[2] / 1000)
  end
  latest = tonumber(head[1] or 0)
  if latest > now then now = latest end
  auditing = head[2] and tonumber(head[2]) > now
  lapsed = head[2] and not auditing
end

-- Every script that writes calls this before its first write.
local function keep_time()
  if now > latest then
    call('HSET', BOOK, '\nnow', format('%d', now))
    latest = now
  end
  if lapsed then
    call('HDEL', BOOK, '\naudit')
    call('DEL', JOURNAL)
    lapsed = false
  end
end

local function tell(what, lines)
  local first = format('%s %d', what, now)
  if not lines then return first end
  return first .. '\n' .. table.concat(lines, '\n')
end

-- A write without effect: a replica, whose counters may be out of date, refuses it, and so tells nothing. Every script ends
-- with it, because a server out of memory lets everything through behind a first write that needs no memory.
local function at_primary(answer)
  call('PERSIST', BOOK)
  return answer
end

local function say(what, lines)
  return at_primary(tell(what, lines))
end

-- While an audit is under way: notes what was changed, under a number that only grows.
local function journal(members)
  if not auditing then return end
  local number = call('HINCRBY', BOOK, '\nchanges', #members) - #members
  for i, member in ipairs(members) do call('ZADD', JOURNAL, number + i, member) end
end

-- The ids of the windows of a moment, and when the counters of its month, day and hour may be removed.
local function windows_at(ms)
  local hours = floor(ms / 3600000)
  local days = floor(hours / 24)
  -- Days since 1970 as a date of the Gregorian calendar; the year begins in March, so that leap days come last.
  local z = days + 719468
  local era = floor(z / 146097)
  local doe = z - era * 146097
  local yoe = floor((doe - floor(doe / 1460) + floor(doe / 36524) - floor(doe / 146096)) / 365)
  local doy = doe - (365 * yoe + floor(yoe / 4) - floor(yoe / 100))
  local mp = floor((5 * doy + 2) / 153)
  local day = doy - floor((153 * mp + 2) / 5) + 1
  local month = mp < 10 and mp + 3 or mp - 9
  local year = yoe + era * 400 + (month <= 2 and 1 or 0)
  local month_id = format('%04d-%02d', year, month)
  local day_id = format('%s-%02d', month_id, day)
  local hour_id = format('%sT%02d', day_id, hours % 24)
  local first = days - day + 1
  local length = floor((153 * (mp + 1) + 2) / 5) - floor((153 * mp + 2) / 5)
  if month == 2 then length = (year % 4 == 0 and (year % 100 ~= 0 or year % 400 == 0)) and 29 or 28 end
  local removed = {
    month = (first + length) * DAY + KEEP_WINDOWS,
    day = (days + 1) * DAY + KEEP_WINDOWS,
    hour = (hours + 1) * 3600000 + KEEP_WINDOWS,
  }
  return { 'total', month_id, day_id, hour_id }, removed
end

-- The fields of the counters of some scopes; hours has a 1 for each scope that is counted per hour.
local function fields_of(scopes, ids, hours)
  local fields = {}
  for i, scope in ipairs(scopes) do
    for j = 1, string.sub(hours, i, i) == '1' and 4 or 3 do fields[#fields + 1] = scope .. '\n' .. ids[j] end
  end
  return fields
end

-- The first two amounts of a counter, and the rest as it is written: most verbs change no other.
local function counter(packed)
  if not packed then return 0, 0, ' 0 0 0' end
  local s, h, rest = match(packed, '^(%-?%d+) (%-?%d+)( %-?%d+ %-?%d+ %-?%d+)$')
  if not s then
    damaged = 'a counter'
    return 0, 0, ' 0 0 0'
  end
  return tonumber(s), tonumber(h), rest
end

local NO_LIMITS = { '-', '-', '-', '-' }

-- The limits of a scope by window, each an amount or "-".
local function limits_of(packed)
  if not packed then return NO_LIMITS end
  local total, month, day, hour = match(packed, '^([%d-]+) ([%d-]+) ([%d-]+) ([%d-]+)$')
  if not total then
    damaged = 'a limit'
    return NO_LIMITS
  end
  return { total, month, day, hour }
end

local function read_counters(fields)
  return call('HMGET', COUNTERS, unpack(fields))
end

-- Adds to counters, which were just read: `spents`, `helds` and `rests` are their parts, and the rest changes where `others`
-- is given: { uncertain, overage, base }. One that is not there is opened only where `opening` says so: one that was
-- removed after its 35 days must not come back with a part. `floors` by field is added to spent as well.
local function write_counters(fields, values, spents, helds, rests, spent, held, others, opening, floors)
  local arguments, n = { 'HSET', COUNTERS }, 2
  for i = 1, #fields do
    if values[i] or opening then
      local field, rest, s = fields[i], rests[i], spents[i] + spent
      if floors and floors[field] then s = s + floors[field] end
      if others then
        local u, o, b = match(rest, '^ (%-?%d+) (%-?%d+) (%-?%d+)$')
        rest = format(' %d %d %d', tonumber(u) + others[1], tonumber(o) + others[2], tonumber(b) + others[3])
      end
      arguments[n + 1], arguments[n + 2] = field, format('%d %d%s', s, helds[i] + held, rest)
      n = n + 2
    end
  end
  if n == 2 then return end
  call(unpack(arguments, 1, n))
  if auditing then
    local members = {}
    for i = 3, n, 2 do members[#members + 1] = 'c' .. arguments[i] end
    journal(members)
  end
end

-- Reads some counters; returns them as they are written, and their parts.
local function read_parts(fields)
  local values, spents, helds, rests = read_counters(fields), {}, {}, {}
  for i = 1, #fields do spents[i], helds[i], rests[i] = counter(values[i]) end
  return values, spents, helds, rests
end

local function add(fields, spent, held, others, opening)
  local values, spents, helds, rests = read_parts(fields)
  if not damaged then write_counters(fields, values, spents, helds, rests, spent, held, others, opening) end
end

-- Notes when the counters that are opened now may be removed.
local function plan_removal(scopes, ids, removed, hours, values)
  local arguments, at = {}, 0
  for i, scope in ipairs(scopes) do
    local windows = string.sub(hours, i, i) == '1' and 4 or 3
    for j = 1, windows do
      if j > 1 and not values[at + j] then
        local n = #arguments
        arguments[n + 1] = format('%d', j == 2 and removed.month or j == 3 and removed.day or removed.hour)
        arguments[n + 2] = scope .. '\n' .. ids[j]
      end
    end
    at = at + windows
  end
  if #arguments > 0 then call('ZADD', OLD, unpack(arguments)) end
end

local function hold_of(packed)
  local state, amount, charged, created, expires, closed, hours, rest =
    match(packed, '^([hsre]) (%d+) (%d+) (%d+) (%d+) (%d+) ([01]+)\n(.*)$')
  if not state then
    damaged = 'a hold'
    return nil
  end
  local names, note = match(rest, '^(.-)\n\n(.*)$')
  local scopes = {}
  for scope in string.gmatch(names or rest, '[^\n]+') do scopes[#scopes + 1] = scope end
  return {
    state = state, amount = tonumber(amount), charged = tonumber(charged), created = tonumber(created),
    expires = tonumber(expires), closed = tonumber(closed), hours = hours, scopes = scopes, note = note,
  }
end

local function packed_hold(hold)
  local head = format('%s %d %d %d %d %d %s\n', hold.state, hold.amount, hold.charged, hold.created,
    hold.expires, hold.closed, hold.hours) .. table.concat(hold.scopes, '\n')
  if hold.note then return head .. '\n\n' .. hold.note end
  return head
end

local function fields_of_hold(hold)
  return fields_of(hold.scopes, windows_at(hold.created), hold.hours)
end

local function is_folded(hold)
  local closed = hold.closed
  if hold.state == 'h' then
    if hold.expires > now then return false end
    closed = hold.expires
  end
  return closed + KEEP_CLOSED <= now
end

-- Writes down at most `portion` leases that have ended, oldest first; says whether there are more.
local function sweep(portion)
  local due = call('ZRANGEBYSCORE', DUE, '-inf', format('%d', now), 'LIMIT', 0, portion + 1)
  if #due == 0 then return false end
  keep_time()
  for i = 1, math.min(#due, portion) do
    local id = due[i]
    local packed = call('GET', HOLD .. id)
    local hold = packed and hold_of(packed)
    if packed and not hold then return false end
    if hold and hold.state == 'h' then
      local fields = fields_of_hold(hold)
      add(fields, hold.amount, -hold.amount, { hold.amount, 0, 0 })
      if damaged then return false end
      hold.state, hold.charged, hold.closed = 'e', hold.amount, hold.expires
      call('SET', HOLD .. id, packed_hold(hold))
      call('RPUSH', FOLD, format('%d h', hold.closed) .. id)
      journal({ 'h' .. id })
    end
    call('ZREM', DUE, id)
  end
  return #due > portion
end

-- Removes a closed hold; what it charged stays, as part of the base.
local function fold(id, hold)
  if hold.charged > 0 then
    add(fields_of_hold(hold), 0, 0, { 0, 0, hold.charged })
    if damaged then return end
  end
  call('DEL', HOLD .. id)
  call('ZREM', IDS, id)
  journal({ 'h' .. id })
end

local function fold_entry(id)
  local packed = call('HGET', ENTRIES, 'u' .. id)
  if not packed then return end
  local scope, amounts = match(packed, '^[^\n]*\n([^\n]*)\n([^\n]*)\n')
  if not scope then
    damaged = 'an adjustment'
    return
  end
  local fields, charged = {}, {}
  for window, amount in string.gmatch(amounts, '(%S+) (%-?%d+)') do
    fields[#fields + 1], charged[#charged + 1] = scope .. '\n' .. window, tonumber(amount)
  end
  -- All are read before one is written: an entry is folded whole, or not at all.
  read_parts(fields)
  if damaged then return end
  for i, field in ipairs(fields) do add({ field }, 0, 0, { 0, 0, charged[i] }) end
  call('HDEL', ENTRIES, 'u' .. id)
  journal({ 'eu' .. id })
end

-- Folds a bounded number of closed holds and entries, and removes as many old counters.
local function clear(portion)
  for _ = 1, portion do
    local head = call('LINDEX', FOLD, 0)
    if not head then break end
    local ms, kind, id = match(head, '^(%d+) (.)(.*)$')
    if not ms then
      damaged = 'the list of what is closed'
      return
    end
    if tonumber(ms) + KEEP_CLOSED > now then break end
    keep_time()
    if kind == 'u' then
      fold_entry(id)
    else
      local packed = call('GET', HOLD .. id)
      local hold = packed and hold_of(packed)
      -- The id may have been used again since: that hold is another one, and has an entry of its own.
      if hold and hold.state ~= 'h' and hold.closed == tonumber(ms) then fold(id, hold) end
    end
    if damaged then return end
    call('LPOP', FOLD)
  end
  local old = call('ZRANGEBYSCORE', OLD, '-inf', format('%d', now), 'LIMIT', 0, portion)
  if #old > 0 then
    keep_time()
    call('HDEL', COUNTERS, unpack(old))
    call('ZREM', OLD, unpack(old))
    for _, field in ipairs(old) do journal({ 'c' .. field }) end
  end
end

-- Writes an entry; its amounts are added to the counters by whoever calls.
local function enter(field, kind, scope, amount, amounts, reason)
  local value = format('%s %d %d\n', kind, amount, now) .. scope .. '\n' .. table.concat(amounts, ' ') .. '\n' .. reason
  call('HSET', ENTRIES, field, value)
  if string.sub(field, 1, 1) == 'u' then call('RPUSH', FOLD, format('%d ', now) .. field) end
  journal({ 'e' .. field })
end

-- The lines that show counters: for each scope its limits, and then each of its counters, empty where there is none.
local function show(limits, scopes, hours, values, lines)
  local at = 0
  for i = 1, #scopes do
    lines[#lines + 1] = limits[i] or ''
    local windows = string.sub(hours, i, i) == '1' and 4 or 3
    for j = 1, windows do lines[#lines + 1] = values[at + j] or '' end
    at = at + windows
  end
  return lines
end

-- The hours of scopes by their limits: a 1 where there is one per hour.
local function hours_of(limits, count)
  local hours = {}
  for i = 1, count do
    hours[i] = (limits[i] and string.sub(limits[i], -2) ~= ' -') and '1' or '0'
  end
  return table.concat(hours)
end
