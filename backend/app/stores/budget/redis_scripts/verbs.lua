-- Does what several callers ask of one tenant, one after another: each as if it were alone.
--
-- KEYS: see the prelude; 7... are the holds, one for each verb.
-- ARGV: 1 now, "" for the server's; 2 how many ended leases are written down in all; 3 how much else is cleared away in
--       all; then for each verb: reserve | settle | release | expire, how many arguments it has, and these, as
--       reserve.lua and close.lua say
-- Answer: that of the verb; of several, a line with the length of each in bytes, and all of them, as they are. Besides
--       what those files say: "again", of one verb and of all behind it: a portion of ended leases was written down,
--       nothing else was done, ask again; "alone": it failed, ask it again by itself
-- Why atomic: each verb is for itself, and sees what those before it did. They come together because a script costs
--       more for its way, and for reading and writing the same scopes, than for what it does with them.

if #KEYS == 7 then
  local answer = (ARGV[4] == 'reserve' and reserve or close)(KEYS[7], 4, 5 + ARGV[5])
  flush()
  if not has_written then at_primary() end
  return answer
end

local answers, lengths, again, at = {}, {}, nil, 4
for i = 7, #KEYS do
  local verb, last = ARGV[at] == 'reserve' and reserve or close, at + 1 + ARGV[at + 1]
  local answer = again
  if not again then
    -- A key of one verb that holds something else must not be the error of all.
    local done
    done, answer = pcall(verb, KEYS[i], at, last)
    if must_wait then
      must_wait = false
      flush()
      nothing_put()
      done, answer = pcall(verb, KEYS[i], at, last)
    end
    if not done then answer = 'alone 0' end
    if sub(answer, 1, 6) == 'again ' then again = answer end
    if is_rare then
      -- What a verb that failed had put is not written.
      if done then flush() end
      forget()
      is_rare = false
    end
  end
  answers[i - 6], lengths[i - 6] = answer, #answer
  at = last + 1
end
flush()
if not has_written then at_primary() end
return concat(lengths, ' ') .. '\n' .. concat(answers)
