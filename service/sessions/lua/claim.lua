-- Take a session over: the epoch grows, and older claims are refused from now on.
-- KEYS     as write.lua has them
-- ARGV[1]  the nonce
-- Gives its fields and values, then its milliseconds to live; or what KEYS[2] has; or nil; or "corrupt".
local kind = redis.call('TYPE', KEYS[1]).ok
if kind == 'none' then
  return redis.call('GET', KEYS[2])
end
if kind ~= 'hash' or not string.match(redis.call('HGET', KEYS[1], '.epoch') or '', '^%d+$') then
  return 'corrupt'
end
redis.call('HINCRBY', KEYS[1], '.epoch', 1)
redis.call('HSET', KEYS[1], '.nonce', ARGV[1])
local fields = redis.call('HGETALL', KEYS[1])
fields[#fields + 1] = redis.call('PTTL', KEYS[1])
return fields
