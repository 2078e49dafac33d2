// Answers lines of JSON: whether http-cache-semantics would store a response, and use it later for another request.
const CachePolicy = require('http-cache-semantics')
let clock = 0
class Policy extends CachePolicy { now () { return clock } }

require('readline').createInterface({ input: process.stdin }).on('line', line => {
  const { request, response, now, later, next } = JSON.parse(line)
  clock = now * 1000
  const policy = new Policy(request, response, { shared: true, cacheHeuristic: 0, immutableMinTimeToLive: 0 })
  const storable = policy.storable()
  const lifetime = policy.maxAge()
  clock = (now + later) * 1000
  const found = policy.evaluateRequest(next)
  const use = !found.response ? 'miss' : found.revalidation ? 'stale' : 'hit'
  console.log(JSON.stringify({ storable, lifetime, use, age: policy.age() }))
})
