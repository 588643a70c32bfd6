-- One POST again and again; whatever is answered otherwise than expected is counted and shown.
-- Environment: BENCH_BODY, BENCH_HEADERS ("Name: value" lines), BENCH_MARKER (text that every answer
-- must hold), BENCH_DISTINCT ("1": no answer may equal the one before it).

local threads = {}

wrk.method = "POST"
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
  local unexpected, example = 0, ""
  for _, thread in ipairs(threads) do
    unexpected = unexpected + thread:get("unexpected")
    if thread:get("example") ~= "" then example = thread:get("example") end
  end
  local errors = summary.errors
  print(string.format(
    "RESULT %d %d %d %d %d %d %s", summary.requests, summary.duration,
    latency:percentile(50), latency:percentile(99),
    errors.connect + errors.read + errors.write + errors.timeout, unexpected, example))
end
