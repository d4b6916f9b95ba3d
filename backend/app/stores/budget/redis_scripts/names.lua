-- Reads a portion of the scopes that have a limit, with their limits, or of those that have a counter.
--
-- KEYS: see the prelude.  ARGV: 1 now, which is not used; 2 limits | counters; 3 cursor, "0" at first; 4 how many at once
-- Answer, an array: the next cursor, "0" at the end; then, for limits, scope and limits by turns; for counters, scopes
-- Why atomic: it need not be. A name that is there from the first portion to the last is in one of them.

local found = call('HSCAN', ARGV[2] == 'limits' and BOOK or COUNTERS, ARGV[3], 'COUNT', ARGV[4])
local answer, seen = { found[1] }, {}
for i = 1, #found[2], 2 do
  local name, value = found[2][i], found[2][i + 1]
  if ARGV[2] == 'counters' then
    local scope = match(name, '^[^\n]+')
    if scope and not seen[scope] then
      seen[scope] = true
      answer[#answer + 1] = scope
    end
  elseif string.sub(name, 1, 1) ~= '\n' then
    answer[#answer + 1] = name
    answer[#answer + 1] = value
  end
end
return at_primary(answer)
