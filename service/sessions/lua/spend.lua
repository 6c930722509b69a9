-- One request against an owner's rate: a bucket that fills by itself, and that a request takes a token from.
-- KEYS[1]  the bucket: absent while it is full, and its time to live is the time until it is. Its value is
--          the part of a millisecond that this is too long, since times to live are whole ones.
-- ARGV[1]  milliseconds in which a token comes
-- ARGV[2]  milliseconds in which an empty bucket fills
-- Gives the milliseconds until there is a token, as text; "0" where one was taken.
local left = redis.call('PTTL', KEYS[1])
if left > 0 then
  local part = tonumber(redis.call('GET', KEYS[1]))
  -- A damaged value counts as 0.
  if not part or not (part >= 0 and part < 1) then
    part = 0
  end
  left = math.max(0, left - part)
else
  left = 0
end
local after = left + ARGV[1]
-- The sums are not exact.
if after > ARGV[2] + 0.001 then
  return tostring(after - ARGV[2])
end
local whole = math.ceil(after)
redis.call('SET', KEYS[1], whole - after, 'PX', whole)
return '0'
