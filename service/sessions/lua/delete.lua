-- Forget a session, and that there was one.
-- KEYS     as write.lua has them
-- ARGV[1]  milliseconds for which it is remembered that it was deleted: no claim brings it back
local there = redis.call('DEL', KEYS[1])
if there == 1 then
  redis.call('SET', KEYS[2], 'deleted', 'PX', ARGV[1])
end
return there
