-- What claim.lua gives, and nothing changes. KEYS as there.
if redis.call('EXISTS', KEYS[1]) == 0 then
  return redis.call('GET', KEYS[2])
end
local fields = redis.call('HGETALL', KEYS[1])
fields[#fields + 1] = redis.call('PTTL', KEYS[1])
return fields
