// Runs the suite against a cache: node run.mjs http://127.0.0.1:PORT. Prints, for each test, its kind and its result.
import { pathToFileURL } from 'node:url'
const load = path => import(pathToFileURL(`${process.env.SUITE}/${path}`))
const { runTests, getResults } = await load('client/runner.mjs')
// Surrogate-Control is in the package, and not in its index.
const suites = [...(await load('tests/index.mjs')).default, (await load('tests/surrogate-control.mjs')).default]
const fetch = (await load('../node-fetch/lib/index.mjs')).default
// A cache that never answers must not hang the run.
await runTests(suites, (url, init) => fetch(url, { ...init, timeout: 20000 }), false, process.argv[2])
const results = getResults()
const told = suites.flatMap(suite => suite.tests.filter(test => test.id in results).map(test => ({
  suite: suite.id, id: test.id, kind: test.kind ?? 'required', passed: results[test.id] === true, told: results[test.id]
})))
console.log(JSON.stringify(told))
process.exit(0)
