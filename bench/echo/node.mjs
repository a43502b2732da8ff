// An echo server with Node's `ws`.
//
//     node [--expose-gc] node.mjs PORT MODULES [--deflate] [--tls CERT KEY]
//
// MODULES is the directory with a node_modules that contains ws; ws finds bufferutil there on
// its own. SIGUSR2 collects garbage.

import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { createServer as createSecureServer } from 'node:https';
import { createRequire } from 'node:module';
import { resolve } from 'node:path';

const [port, modules, ...options] = process.argv.slice(2);
const { WebSocketServer } = createRequire(resolve(modules, 'package.json'))('ws');

const tls = options.indexOf('--tls');
const server =
  tls < 0
    ? createServer()
    : createSecureServer({
        cert: readFileSync(options[tls + 1]),
        key: readFileSync(options[tls + 2]),
      });
const sockets = new WebSocketServer({
  server,
  maxPayload: 16 << 20,
  // Its default leaves messages below 1 KiB uncompressed.
  perMessageDeflate: options.includes('--deflate') ? { threshold: 0 } : false,
});
sockets.on('connection', (socket) => {
  socket.on('error', () => {});
  socket.on('message', (data, binary) => socket.send(data, { binary }));
});
process.on('SIGUSR2', () => globalThis.gc?.());
server.listen({ port: Number(port), host: '127.0.0.1', backlog: 1024 });
