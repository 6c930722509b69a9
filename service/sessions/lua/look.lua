-- What claim.lua gives, and nothing changes. KEYS as there.
local kind = redis.call('TYPE', KEYS[1]).ok
if kind == 'none' then
  return redis.call('GET', KEYS[2])
end
if kind ~= 'hash' then
  return 'corrupt'
end
local fields = redis.call('HGETALL', KEYS[1])
fields[#fields + 1] = redis.call('PTTL', KEYS[1])
return fields
