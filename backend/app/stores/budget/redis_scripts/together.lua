-- What the verbs of one script share, behind `rarely`: what one has read the next one knows, and what they write is
-- written at the end, each field of the book once, whoever changed it last.

-- The head of the book; its scopes, each taken apart if it is simple, else as { text = ... }, false where there is none,
-- all as the verbs before have left them; and the holds that are to be written, by key.
local last_ms, next_due, hour_line, audit, stop
local book, holds = {}, {}
-- What is to be written: names of scopes, and commands.
local scopes_put, hour_put, next_put = {}, false, false
local put_holds, put_due, put_ids = { 'MSET' }, { 'ZADD', AGENDA }, { 'ZADD', IDS }
-- What is left of the work that verbs do beside their own; the time, once it was read, and the day of the book; whether
-- something was written; whether a verb has used `rarely`, or has to wait for what the others put.
local to_sweep, to_clear = tonumber(ARGV[2]), tonumber(ARGV[3])
local now, day_of_book, plain, has_written, is_rare, must_wait

-- Reads what is not known yet of the head of the book and of some scopes, in one command.
local function read(names, first, last)
  if last_ms == nil then
    local values = call('HMGET', BOOK, '\nnow', '\nnext', '\nhour', '\naudit', '\nstop', unpack(names, first, last))
    last_ms, next_due, hour_line, audit, stop = unpack(values, 1, 5)
    now, next_due = clock(last_ms), tonumber(next_due or 0)
    day_of_book = sub(hour_line or '', 1, 10)
    plain = unlimited(day_of_book)
    for i = first, last do
      local value = values[6 + i - first]
      book[names[i]] = apart(value, day_of_book, plain) or { text = value, is_put = false }
    end
    return
  end
  local unknown = {}
  for i = first, last do
    if not book[names[i]] then unknown[#unknown + 1] = names[i] end
  end
  if #unknown == 0 then return end
  for i, value in ipairs(call('HMGET', BOOK, unpack(unknown))) do
    book[unknown[i]] = apart(value, day_of_book, plain) or { text = value, is_put = false }
  end
end

local function put(name, scope)
  if not scope.is_put then
    scope.is_put = true
    scopes_put[#scopes_put + 1] = name
  end
end

-- Puts a hold, and when it is due if that is new.
local function put_hold(key, packed, due_ms)
  holds[key] = packed
  local n = #put_holds
  put_holds[n + 1], put_holds[n + 2] = key, packed
  if due_ms then
    n = #put_due
    put_due[n + 1], put_due[n + 2] = format('%d', due_ms), 'h' .. sub(key, ID_AT)
  end
end

-- Writes all that was put. The book is first, because a server out of memory refuses a script only at its first write.
local function flush()
  if not put_holds[2] then return end
  local words, n = { 'HSET', BOOK, '\nnow', format('%d', now) }, 4
  for i = 1, #scopes_put do
    local name = scopes_put[i]
    words[n + 1], words[n + 2] = name, text_of(book[name])
    n = n + 2
  end
  if next_put then
    words[n + 1], words[n + 2] = '\nnext', format('%d', next_due)
    n = n + 2
  end
  if hour_put then words[n + 1], words[n + 2] = '\nhour', hour_line end
  call(unpack(words))
  -- A user that was made for an older Nova may not MSET. The book is written by now, so this must not fail.
  if redis.pcall(unpack(put_holds)).err then
    for i = 2, #put_holds, 2 do call('SET', put_holds[i], put_holds[i + 1]) end
  end
  if put_due[3] then call(unpack(put_due)) end
  if put_ids[3] then call(unpack(put_ids)) end
  has_written = true
end

local function nothing_put()
  for i = 1, #scopes_put do book[scopes_put[i]].is_put = false end
  scopes_put, hour_put, next_put = {}, false, false
  put_holds, put_due, put_ids = { 'MSET' }, { 'ZADD', AGENDA }, { 'ZADD', IDS }
end

-- What is not simple reads and writes by itself, behind all that the verbs before have put: it begins anew when that is
-- written. It is not written here, where an error would be one of this verb.
local function by_itself()
  must_wait = put_holds[2] ~= nil
  if must_wait then error('nova: not yet') end
  is_rare = true
  return rarely(now, { last_ms, next_due, hour_line, audit })
end

-- For what was written by itself, and for what a verb that failed had put.
local function forget()
  nothing_put()
  last_ms, book, holds = nil, {}, {}
end
