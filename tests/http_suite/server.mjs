// The suite's server, on this machine alone.
import http from 'node:http'
import { pathToFileURL } from 'node:url'
const listen = http.Server.prototype.listen
http.Server.prototype.listen = function (port) { return listen.call(this, port, '127.0.0.1') }
await import(pathToFileURL(`${process.env.SUITE}/server/server.mjs`))
