-- Reads a portion of the scopes that have a limit or a counter: those in the book, or those with a counter behind it.
--
-- KEYS: see the prelude.  ARGV: 1 now, which is not told; 2 book | ended; 3 cursor, "0" at first; 4 how many at once
-- Answer, an array: the next cursor, "0" at the end; then scope and limits by turns; limits are "" behind the book
-- Why atomic: it need not be. A name that is there from the first portion to the last is in one of them.

clock(call('HGET', BOOK, '\nnow'))
local found = call('HSCAN', ARGV[2] == 'book' and BOOK or ENDED, ARGV[3], 'COUNT', ARGV[4])
local answer, seen = { found[1] }, {}
for i = 1, #found[2], 2 do
  local scope, limits = match(found[2][i], '^[^\n]+'), ''
  if scope and ARGV[2] == 'book' then limits = match(found[2][i + 1], '^[^\n]*\n[^\n]*\n([^\n]*)') or '?' end
  if scope and not seen[scope] then
    seen[scope] = true
    answer[#answer + 1] = scope
    answer[#answer + 1] = limits
  end
end
return at_primary(answer)
