-- A whole session: a new one, or one of which the store lost something, by whoever holds the newest claim.
-- KEYS[1]  the session: a hash of its parts and of .epoch, .nonce, .cursor, .ttl (milliseconds, twice)
-- KEYS[2]  that it exists, or existed: "open" or "deleted"; outlives it
-- ARGV     epoch, nonce, cursor, ttl, milliseconds that KEYS[2] outlives it, then name and value of each part
-- Gives "done"; "claimed" and "corrupt" as commit.lua does; what KEYS[2] has where the session came to its end.
local kind = redis.call('TYPE', KEYS[1]).ok
if kind ~= 'none' then
  local known = kind == 'hash' and redis.call('HMGET', KEYS[1], '.epoch', '.nonce') or {}
  if not string.match(known[1] or '', '^%d+$') then
    return 'corrupt'
  end
  local newer = tonumber(known[1]) - tonumber(ARGV[1])
  if newer > 0 or (newer == 0 and known[2] ~= ARGV[2]) then
    return 'claimed'
  end
else
  local ended = redis.call('GET', KEYS[2])
  if ended then
    return ended
  end
end
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], '.epoch', ARGV[1], '.nonce', ARGV[2], '.cursor', ARGV[3], '.ttl', ARGV[4] .. ' ' .. ARGV[4])
for index = 6, #ARGV, 2 do
  redis.call('HSET', KEYS[1], ARGV[index], ARGV[index + 1])
end
redis.call('PEXPIRE', KEYS[1], ARGV[4])
redis.call('SET', KEYS[2], 'open', 'PX', ARGV[4] + ARGV[5])
return 'done'
