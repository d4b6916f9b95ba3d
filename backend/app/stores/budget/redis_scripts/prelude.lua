-- The head of every budget script: a tenant's keys, the time, and answers.
--
-- KEYS, all in one hash slot, `nova:{tenant}:...`:
--   1 budget:book      hash: scope -> its limits and its counters in the latest windows: see the counters. And "\nnow",
--                      "\nnext", "\nhour", "\naudit", "\nstop", "\nchanges", "\nrepairs" (no scope has a line feed in
--                      its name): the latest time; a time before which nothing on the agenda is due, never behind the
--                      end of the lease that was granted last, so that only a lease can be noted which ends before it;
--                      the window id of an hour and its number since 1970; until when changes are journalled; the
--                      emergency stop; how many changes were journalled; how often counters were repaired
--   2 budget:agenda    zset: what is to be done -> when. "h" hold id: the end of its lease, while it is held. Behind
--                      CLEARING, which is added to the time: "h" hold id and "u" entry id, to be folded, and
--                      "c" scope "\n" window id, to be removed
--   3 budget:ids       zset, all scores 0: the id of every hold, so that they can be listed in order
--   4 budget:entries   hash: "n" id (named by a caller) or "u" id -> "kind amount ms\nscope\nwindow amount ...\nreason"
--   5 budget:ended     hash: scope "\n" window id -> "spent held uncertain overage base", of windows that have ended
--                      and made room for the next one in the book
--   6 budget:journal   zset: "h" hold id, "e" entry, "c" scope in the book, "w" ended counter -> number of its last
--                      change, while an audit is under way
--   7... hold:<id>     string: "state amount charged created expires closed hours\nscope\n...\nscope", and where
--                      something was noted "\n\n" and the note; hours has a 1 for each scope that had a limit per hour
-- Only what is due touches holds that are not in KEYS; their keys are in the same slot.
--
-- Units: microcents, ms since 1970 UTC. Amounts are exact as numbers up to 2^53 - 1 and are written by '%d' only:
-- tostring and .. lose digits. No sum of a limit's parts is formed, because beside 2^53 it would be rounded.
-- Answers are one string of lines, because a client parses one faster than thirty; the first line is what happened and
-- the time. Why atomic: a script runs alone, so nothing comes between reading a counter and writing it.
--
-- A command costs about a microsecond, and so do three functions, which a script makes anew at each run. So what most
-- runs need is written out, and one function, `rarely`, makes all the others.

local BOOK, AGENDA, IDS, ENTRIES, ENDED, JOURNAL = unpack(KEYS, 1, 6)

local CLEARING = 4503599627370496
local ID_AT = #BOOK - #'budget:book' + #'hold:' + 1
local HOUR = 3600000
local KEEP_CLOSED = 7 * 24 * HOUR

local call, format, match, find = redis.call, string.format, string.match, string.find
local sub, concat = string.sub, table.concat
local floor, min = math.floor, math.min

local server_ms

-- Returns the time of the caller (tests) or the server's; it never goes back behind the last one. Without a last one
-- the book is new, and a tenant whose limits and counters lie where an older Nova kept them, in the hash `budget`,
-- would begin again with nothing spent and no limit: that ends the script before it has written anything.
local function clock(last)
  local now
  if not last and call('HLEN', sub(BOOK, 1, -6)) > 0 then error('nova: an older layout') end
  if ARGV[1] ~= '' then
    now = tonumber(ARGV[1])
  else
    if not server_ms then
      local time = call('TIME')
      server_ms = time[1] * 1000 + floor(time[2] / 1000)
    end
    now = server_ms
  end
  last = tonumber(last or 0)
  return last > now and last or now
end

-- Ends with a write without effect: a replica, whose counters may be out of date, refuses it, and so tells nothing.
-- Every script that does not end in a write of its own ends with it. It is not the first one, because a server out of
-- memory lets everything through behind a first write that needs no memory.
local function at_primary(answer)
  call('PERSIST', BOOK)
  return answer
end

local function told(what, now, lines)
  local answer = format('%s %d', what, now)
  if lines then answer = answer .. '\n' .. lines end
  return answer
end

local function say(what, now, lines) return at_primary(told(what, now, lines)) end
