-- Reads a portion of everything that a tenant keeps, so that all portions together are of one moment.
--
-- Where little is kept, "begin" gives all of it. Else it opens the journal, in which from then on every change is noted;
-- holds, entries and counters are read by portions; "changes" gives again what changed meanwhile, until it gives less
-- than a portion: at that moment whoever reads has everything as it is. No script takes longer than a portion does.
--
-- KEYS: see the prelude.
-- ARGV: 1 now, "" for the server's; 2 begin | holds | entries | book | ended | changes; 3 cursor: an id, a cursor of HSCAN,
--       or the number of the last change that is known; 4 how many at once
-- Answer, an array: now, repairs so far, and what is next: begin: "whole", or the number of the last change; else the
--       next cursor; then triples of "h", "e", "c" (a scope in the book) or "w", name, value ("" where it is
--       no more). "lapsed" as next: the journal was closed meanwhile, begin anew.
-- Why atomic: the last portion of changes is read with nothing in between.

local JOURNAL_MS = 60000

local head = call('HMGET', BOOK, '\nnow', '\naudit', '\nrepairs', '\nchanges')
local now = clock(head[1])
local auditing = head[2] and tonumber(head[2]) > now
local prefix = sub(BOOK, 1, -12) .. 'hold:'
local phase, cursor, most = ARGV[2], ARGV[3], tonumber(ARGV[4])
local answer = { format('%d', now), head[3] or '0', '' }

local function give(kind, name, value)
  local n = #answer
  answer[n + 1], answer[n + 2], answer[n + 3] = kind, name, value or ''
end

local function give_holds(ids)
  for _, id in ipairs(ids) do give('h', id, call('GET', prefix .. id)) end
end

-- The head of the book, whose names begin with a line feed, is left out.
local function give_pairs(kind, found)
  for i = 1, #found, 2 do
    if sub(found[i], 1, 1) ~= '\n' then give(kind, found[i], found[i + 1]) end
  end
end

local HASHES = { e = ENTRIES, c = BOOK, w = ENDED }
local KINDS = { entries = 'e', book = 'c', ended = 'w' }

if phase == 'begin' then
  if call('ZCARD', IDS) + call('HLEN', BOOK) + call('HLEN', ENDED) + call('HLEN', ENTRIES) <= most then
    answer[3] = 'whole'
    give_holds(call('ZRANGE', IDS, 0, -1))
    for kind, hash in pairs(HASHES) do give_pairs(kind, call('HGETALL', hash)) end
    return at_primary(answer)
  end
  call('HSET', BOOK, '\nnow', format('%d', now))
  if not auditing then call('DEL', JOURNAL) end
  answer[3] = head[4] or '0'
elseif not auditing then
  answer[3] = 'lapsed'
  return at_primary(answer)
end
call('HSET', BOOK, '\naudit', format('%d', now + JOURNAL_MS))

if phase == 'holds' then
  local ids = call('ZRANGEBYLEX', IDS, cursor == '' and '-' or '(' .. cursor, '+', 'LIMIT', 0, most)
  give_holds(ids)
  if #ids == most then answer[3] = ids[#ids] end
elseif KINDS[phase] then
  local found = call('HSCAN', HASHES[KINDS[phase]], cursor, 'COUNT', most)
  if found[1] ~= '0' then answer[3] = found[1] end
  give_pairs(KINDS[phase], found[2])
elseif phase == 'changes' then
  local found = call('ZRANGEBYSCORE', JOURNAL, '(' .. cursor, '+inf', 'WITHSCORES', 'LIMIT', 0, most)
  for i = 1, #found, 2 do
    local kind, name = sub(found[i], 1, 1), sub(found[i], 2)
    if kind == 'h' then
      give('h', name, call('GET', prefix .. name))
    else
      give(kind, name, call('HGET', HASHES[kind], name))
    end
  end
  if #found == 2 * most then answer[3] = found[#found] end
end
return answer
