-- Counters, behind the prelude: a scope in the book, and what of it is simple.
--
-- A scope in the book is five lines. First spent and held in all, and how much of them lies outside its month and
-- outside its day, "spent held spent held spent held": most changes are of all windows, and so of two numbers. Then
-- which windows these are: "-" none, "total", "2026-11" (total and this month), or "2026-11-24" (total, its month and
-- this day); the limits of total, month, day and hour, "-" for none; "-", or the id of an hour with its spent, held,
-- uncertain, overage and base; and uncertain, overage and base of total, month and day.

-- What stands behind the numbers of a scope that has the windows of a day, no limits and no counter per hour.
local function unlimited(day) return '\n' .. day .. '\n- - - -\n-\n' end

-- Takes apart a scope of which only the numbers change and the rest is left as it is: it is not below zero, has the
-- windows of a day (most are of this `day`, and `plain`, which is unlimited(day)) and no counter per hour. Nil where it is
-- not so simple: see `changed` in `rarely`.
local function apart(packed, day, plain)
  local s, h, at, behind = match(packed or '', '^(%d+) (%d+)() %d+ %d+ %d+ %d+()')
  if not s then return nil end
  local limits = false
  if find(packed, plain, behind, true) ~= behind then
    local ms, mh, ds, dh, of, l1, l2, l3 = match(packed,
      '^ (%d+) (%d+) (%d+) (%d+)\n(%d+%-%d+%-%d+)\n(%-?%d*) (%-?%d*) (%-?%d*) %-\n%-\n', at)
    if not of then return nil end
    day, limits = of, { tonumber(l1) or false, tonumber(l2) or false, tonumber(l3) or false, ms, mh, ds, dh }
  end
  return { spent = tonumber(s), held = tonumber(h), day = day, rest = sub(packed, at), limits = limits, is_put = false }
end

local function text_of(scope)
  return scope.rest and format('%d %d', scope.spent, scope.held) .. scope.rest or scope.text
end

-- Returns the least that a counter of the scope may take below 2^53, and below its limits.
local function room_of(scope)
  local s, h, left = scope.spent, scope.held, 9007199254740991
  local room = left - s - h
  if scope.limits then
    local l1, l2, l3, ms, mh, ds, dh = unpack(scope.limits)
    if l1 then left = min(left, l1 - s - h) end
    if l2 then left = min(left, l2 - (s - ms) - (h - mh)) end
    if l3 then left = min(left, l3 - (s - ds) - (h - dh)) end
  end
  return room, left
end
