-- Counters, behind the prelude: a scope in the book, and what it is after a change.
--
-- A scope in the book is five lines. First spent and held in all, and how much of them lies outside its month and
-- outside its day, "spent held spent held spent held": most changes are of all windows, and so of two numbers. Then
-- which windows these are: "-" none, "total", "2026-11" (total and this month), or "2026-11-24" (total, its month and
-- this day); the limits of total, month, day and hour, "-" for none; "-", or the id of an hour with its spent, held,
-- uncertain, overage and base; and uncertain, overage and base of total, month and day.

-- What stands behind the numbers of a scope that has the windows of a day, no limits and no counter per hour.
local function unlimited(day)
  return '\n' .. day .. '\n- - - -\n-\n'
end

-- Returns a scope after an amount, at least 0, was added to what is spent in all of its windows, and one to what is
-- held, the least that a counter may take below 2^53, and below its limits where it is held to them (`limited`). Nil
-- where it is not so simple: see `changed` in `rarely`. What it does not change it does not read.
local function simply_changed(packed, day, plain, spent, held, limited)
  local s, h, outside, at = match(packed or '', '^(%d+) (%d+)( %d+ %d+ %d+ %d+)()')
  if not at then return nil end
  local rest, left = sub(packed, at), 9007199254740991
  local room = left - s - h
  if sub(rest, 1, #plain) ~= plain then
    local of, l1, l2, l3 = match(rest, '^\n(%S+)\n(%-?%d*) (%-?%d*) (%-?%d*) %-\n')
    if of ~= day then return nil end
    if limited then
      local ms, mh, ds, dh = match(outside, '^ (%d+) (%d+) (%d+) (%d+)$')
      if l1 ~= '-' then left = min(left, l1 - s - h) end
      if l2 ~= '-' then left = min(left, l2 - (s - ms) - (h - mh)) end
      if l3 ~= '-' then left = min(left, l3 - (s - ds) - (h - dh)) end
    end
  end
  return format('%d %d', s + spent, h + held) .. outside .. rest, room, left
end
