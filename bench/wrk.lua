-- Requests, each connection one after the other; whatever is answered otherwise than expected is counted
-- and shown.
-- Environment: BENCH_METHOD, BENCH_BODY, BENCH_HEADERS ("Name: value" lines), BENCH_MARKER (text that every answer
-- must hold), BENCH_DISTINCT ("1": no answer may equal the one before it), BENCH_REQUESTS (empty: every
-- request is the same; or a file with two lines for each request, its DPoP proof and its body).

local ffi = require("ffi")
ffi.cdef[[
typedef struct { long seconds; long microseconds; } bench_moment;
int gettimeofday(bench_moment *, void *);
]]
local threads = {}
local prepared = os.getenv("BENCH_REQUESTS") or ""
-- Each connection may send one more request after the run was ended.
local reserve = 1024

wrk.method = os.getenv("BENCH_METHOD")
wrk.body = os.getenv("BENCH_BODY")
wrk.headers["Content-Type"] = "application/x-www-form-urlencoded"
for name, value in string.gmatch(os.getenv("BENCH_HEADERS"), "([^\n:]+): ([^\n]*)") do
  wrk.headers[name] = value
end

function setup(thread)
  table.insert(threads, thread)
end

function init()
  marker = os.getenv("BENCH_MARKER")
  distinct = os.getenv("BENCH_DISTINCT") == "1"
  previous, unexpected, example = "", 0, ""
  if prepared ~= "" then read_requests() end
end

function read_requests()
  requests, place = {}, 0
  local lines = io.lines(prepared)
  for proof in lines do
    local headers = { DPoP = proof ~= "" and proof or nil }
    for name, value in pairs(wrk.headers) do headers[name] = value end
    table.insert(requests, wrk.format(nil, nil, headers, lines()))
  end
end

local function now()
  local moment = ffi.new("bench_moment")
  ffi.C.gettimeofday(moment, nil)
  return tonumber(moment.seconds) * 1000000 + tonumber(moment.microseconds)
end

if prepared ~= "" then
  function request()
    place = place + 1
    if place == 1 then began = now() end
    if place + reserve >= #requests then
      ended = ended or now()
      wrk.thread:stop()
    end
    return requests[place]
  end
end

function response(status, _, body)
  local found = status == 200 and string.find(body, marker, 1, true)
  if not found or (distinct and body == previous) then
    unexpected = unexpected + 1
    example = status .. " " .. string.sub(string.gsub(body, "[^%w%p ]", " "), 1, 300)
  end
  previous = body
end

function done(summary, latency)
  local unexpected, example, duration = 0, "", summary.duration
  for _, thread in ipairs(threads) do
    -- wrk itself waits for the whole duration.
    if thread:get("ended") then duration = thread:get("ended") - thread:get("began") end
    unexpected = unexpected + thread:get("unexpected")
    if thread:get("example") ~= "" then example = thread:get("example") end
  end
  local errors = summary.errors
  print(string.format(
    "RESULT %d %d %d %d %d %d %s", summary.requests, duration,
    latency:percentile(50), latency:percentile(99),
    errors.connect + errors.read + errors.write + errors.timeout, unexpected, example))
end
