-- The requests of wrk: every twentieth one is a slow one.
local nth = 0

request = function()
   nth = nth + 1
   if nth % 20 == 0 then
      return wrk.format("GET", "/slow?ms=" .. math.random(80))
   end
   return wrk.format("GET", "/")
end
