-- One frame: the cursor moves, parts come and go, the time to live begins anew. All of it, or nothing.
-- KEYS     as write.lua has them
-- ARGV     epoch, nonce, cursor before, cursor after, milliseconds that KEYS[2] outlives KEYS[1],
--          count of parts, name and value of each, then names that are dropped
-- Gives "done", which it also is when it was done before; "claimed" (a newer claim is known); "behind" (the
-- store lost something); what KEYS[2] has where the session came to its end; "corrupt" (its fields are damaged).
local kind = redis.call('TYPE', KEYS[1]).ok
if kind == 'none' then
  return redis.call('GET', KEYS[2]) or 'behind'
end
if kind ~= 'hash' then
  return 'corrupt'
end
local known = redis.call('HMGET', KEYS[1], '.epoch', '.nonce', '.cursor', '.ttl')
-- The time to live is there twice: a damaged one must not end the session early.
local ttl, again = string.match(known[4] or '', '^(%d+) (%d+)$')
if not string.match(known[1] or '', '^%d+$') or not ttl or ttl ~= again then
  return 'corrupt'
end
local newer = tonumber(known[1]) - tonumber(ARGV[1])
if newer > 0 or (newer == 0 and known[2] ~= ARGV[2]) then
  return 'claimed'
end
if newer == 0 and known[3] == ARGV[4] then
  return 'done'
end
if newer < 0 or known[3] ~= ARGV[3] then
  return 'behind'
end
local last = 6 + 2 * ARGV[6]
for index = 7, last, 2 do
  redis.call('HSET', KEYS[1], ARGV[index], ARGV[index + 1])
end
for index = last + 1, #ARGV do
  redis.call('HDEL', KEYS[1], ARGV[index])
end
redis.call('HSET', KEYS[1], '.cursor', ARGV[4])
redis.call('PEXPIRE', KEYS[1], ttl)
redis.call('SET', KEYS[2], 'open', 'PX', ttl + ARGV[5])
return 'done'
