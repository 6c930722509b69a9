-- A place among an owner's requests under way, held for as long as its lease; taken again, it is held on.
-- KEYS[1]  the places: a sorted set of who has them, by the end of their leases (Redis's time, milliseconds)
-- ARGV     who takes one, how many there are, milliseconds of the lease
-- Gives 1, or 0 where all are taken.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
local has = redis.call('ZSCORE', KEYS[1], ARGV[1])
if not has and redis.call('ZCARD', KEYS[1]) >= tonumber(ARGV[2]) then
  return 0
end
redis.call('ZADD', KEYS[1], now + ARGV[3], ARGV[1])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return 1
