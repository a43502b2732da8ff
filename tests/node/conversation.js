// The Node world's side of the tests, with the `ws` package.
//
//   node conversation.js client NAME URL   hold a conversation; status 0 if it went as it should
//   node conversation.js server [CERT KEY] serve, and log to stdout what happens; DEFLATE in the
//                                          environment has options of permessage-deflate in JSON

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { createServer as createHttpServer } from 'node:http';
import { createServer as createHttpsServer } from 'node:https';

import WebSocket, { WebSocketServer } from 'ws';

// Clients of an echo server -----------------------------------------------------------------

async function open(url, ...options) {
  const ws = new WebSocket(url, ...options); // perMessageDeflate is offered by default
  await once(ws, 'open');
  assert.equal(ws.extensions, '');
  return ws;
}

async function expectEcho(ws, message) {
  ws.send(message);
  const [data, isBinary] = await once(ws, 'message');
  assert.equal(isBinary, typeof message !== 'string');
  assert.ok(data.equals(Buffer.from(message)), `${data.length} bytes that are not what was sent`);
}

async function expectClose(ws, code, reason) {
  const [actualCode, actualReason] = await once(ws, 'close');
  assert.equal(actualCode, code);
  if (reason !== undefined) assert.equal(actualReason.toString(), reason);
}

const clients = {
  // As README.md has it.
  hello(url) {
    return new Promise((resolve, reject) => {
      const said = [];
      const console = { log: (format, ...words) => said.push([format, ...words.map(String)]) };

      const ws = new WebSocket(url);
      ws.on('open', () => ws.send('Hello Server!'));
      ws.on('message', (data) => { console.log('Server: %s', data); ws.close(); });
      ws.on('close', (code) => console.log('closed with', code));
      ws.on('error', reject);

      ws.on('close', () => {
        assert.deepEqual(said, [['Server: %s', 'Hello Server!'], ['closed with', '1005']]);
        resolve();
      });
    });
  },

  async text(url) {
    const ws = await open(url);
    for (const text of ['', 'a', 'zażółć 漢字 🎈', '\0', 'x'.repeat(65_536), 'é'.repeat(1 << 19)]) {
      await expectEcho(ws, text);
    }
    ws.close(1000);
    await expectClose(ws, 1000, '');
  },

  async binary(url) {
    const ws = await open(url);
    for (const size of [0, 1, 125, 126, 127, 65_535, 65_536, 1 << 20]) {
      await expectEcho(ws, Buffer.from(Uint8Array.from({ length: size }, (_, i) => i * 7)));
    }
    ws.close(1000);
    await expectClose(ws, 1000, '');
  },

  async deflate(url) {
    for (const perMessageDeflate of [true, false, { serverNoContextTakeover: true, threshold: 0 }]) {
      const ws = await open(url, { perMessageDeflate });
      await expectEcho(ws, 'x'.repeat(10_000));
      ws.close(1000);
      await expectClose(ws, 1000);
    }
  },

  async fragments(url) {
    const ws = await open(url);
    // Both may come in one read, so that there is no time to listen for the second then.
    const answers = Promise.all([once(ws, 'pong'), once(ws, 'message')]);
    const order = [];
    for (const name of ['pong', 'message']) ws.once(name, () => order.push(name));
    ws.send('Hello ', { fin: false });
    ws.ping('between');
    ws.send('', { fin: false });
    ws.send('Ser', { fin: false });
    ws.send('ver!', { fin: true });
    const [[pong], [data, isBinary]] = await answers;
    assert.deepEqual(order, ['pong', 'message']); // a pong does not wait for the message
    assert.equal(pong.toString(), 'between');
    assert.deepEqual([data.toString(), isBinary], ['Hello Server!', false]);

    // A code point across the fragments.
    const octets = Buffer.from('🎈');
    ws.send(octets.subarray(0, 1), { fin: false, binary: false });
    ws.send(octets.subarray(1, 3), { fin: false });
    ws.send(octets.subarray(3), { fin: true });
    assert.equal((await once(ws, 'message'))[0].toString(), '🎈');
    ws.close(1000);
    await expectClose(ws, 1000);
  },

  async many(url) {
    const ws = await open(url);
    const seen = [];
    ws.on('message', (data) => {
      if (seen.push(data.toString()) === 10_000) ws.close(1000);
    });
    const sent = Array.from({ length: 10_000 }, (_, i) => String(i));
    for (const text of sent) ws.send(text);
    await expectClose(ws, 1000);
    assert.deepEqual(seen, sent);
  },

  async ping(url) {
    const ws = await open(url);
    for (const data of ['', 'are you there', 'x'.repeat(125)]) {
      ws.ping(data);
      assert.equal((await once(ws, 'pong'))[0].toString(), data);
    }
    ws.pong('nobody asked');
    await expectEcho(ws, 'still here');
    ws.close(1000);
    await expectClose(ws, 1000);
  },

  async close(url) {
    for (const [code, reason] of [[1000, ''], [1001, 'away'], [3000, 'zażółć'], [4999, 'x'.repeat(123)]]) {
      const ws = await open(url);
      ws.close(code, reason);
      await expectClose(ws, code, reason);
    }
  },

  // Every violation gets the close code that is its own.
  async violations(url) {
    const violations = [
      [1002, (ws) => ws._socket.write(Buffer.from('810161', 'hex'))], // not masked
      [1002, (ws) => ws._socket.write(Buffer.from('838000000000', 'hex'))], // reserved opcode
      [1002, (ws) => ws._socket.write(Buffer.from('c18000000000', 'hex'))], // RSV1
      [1007, (ws) => ws.send(Buffer.from('c328', 'hex'), { binary: false })],
      [1009, (ws) => ws.send(Buffer.alloc((1 << 20) + 1))],
    ];
    for (const [code, violate] of violations) {
      const ws = await open(url);
      violate(ws);
      await expectClose(ws, code);
    }
  },

  // The close frame arrives although we never stop to send.
  async flood(url) {
    const ws = await open(url);
    for (let i = 0; i < 8; i++) ws.send(Buffer.alloc(1 << 22));
    await expectClose(ws, 1009);
  },

  // Other servers -----------------------------------------------------------------------

  async subprotocol(url) {
    const ws = await open(url, ['one', 'two']);
    assert.equal(ws.protocol, 'two');
    await expectEcho(ws, 'Hello Server!');
    ws.close(1000);
    await expectClose(ws, 1000);
  },

  async refused(url) {
    const ws = new WebSocket(url);
    const seen = [];
    ws.on('error', (error) => seen.push(error.code));
    await new Promise((resolve) => ws.on('close', (code) => { seen.push(code); resolve(); }));
    assert.deepEqual(seen, ['ECONNREFUSED', 1006]);
  },

  async forbidden(url) {
    const ws = new WebSocket(url);
    const [, response] = await once(ws, 'unexpected-response');
    assert.equal(response.statusCode, 403);
    assert.equal(response.headers['content-type'], 'text/plain; charset=utf-8');
    const chunks = [];
    for await (const chunk of response) chunks.push(chunk);
    assert.equal(Buffer.concat(chunks).toString(), 'not today\n');
  },

  async greet(url) {
    const ws = await open(url);
    ws.send('Hello Server!');
    const [data] = await once(ws, 'message');
    assert.equal(data.toString(), 'Hello, you sent -> Hello Server!');
    ws.close(1000, 'bye');
    await expectClose(ws, 1000, 'bye');
  },

  // What the server sends, until it closes the connection.
  async listen(url) {
    const ws = new WebSocket(url);
    ws.on('open', () => console.log('open'));
    ws.on('ping', (data) => console.log(`ping: ${data}`));
    ws.on('message', (data, isBinary) => console.log(`${isBinary ? 'binary' : 'text'}: ${data}`));
    const [code, reason] = await once(ws, 'close');
    console.log(`closed: ${code} ${reason}`.trim());
  },
};

// A server ----------------------------------------------------------------------------------

const paths = {
  // The conversation that many tutorials begin with.
  '/': (ws) => ws.on('message', (data) => {
    console.log('received: %s', data);
    ws.send(`Hello, you sent -> ${data}`);
  }),
  '/echo': (ws) => ws.on('message', (data, isBinary) => ws.send(data, { binary: isBinary })),
  '/fragments': (ws) => ws.on('message', (data, isBinary) => {
    const options = { binary: isBinary };
    for (const octet of data) ws.send(Buffer.of(octet), { ...options, fin: false });
    ws.ping('between');
    ws.send('', { ...options, fin: true });
  }),
  '/ping': (ws) => {
    ws.on('pong', (data) => ws.send(`pong: ${data}`));
    ws.ping('are you there');
  },
  '/close': (ws, query) => ws.close(Number(query.get('code')), query.get('reason')),
  '/close-without-code': (ws) => ws.close(),
  '/terminate': (ws) => ws.terminate(),
};

function serve(cert, key) {
  const server = cert
    ? createHttpsServer({ cert: readFileSync(cert), key: readFileSync(key) })
    : createHttpServer();
  const wss = new WebSocketServer({
    server,
    perMessageDeflate: JSON.parse(process.env.DEFLATE ?? 'true'),
    handleProtocols: (offered) => (offered.has('two') ? 'two' : false),
    verifyClient: ({ req }) => req.headers['x-unwelcome'] === undefined,
  });
  wss.on('connection', (ws, request) => {
    const url = new URL(request.url, 'ws://localhost');
    ws.on('error', (error) => console.log(`error: ${error.message}`));
    ws.on('close', (code, reason) => console.log(`closed: ${code} ${reason}`.trim()));
    paths[url.pathname](ws, url.searchParams);
  });
  server.listen(0, '127.0.0.1', () => console.log(server.address().port));
}

const [role, ...args] = process.argv.slice(2);
if (role === 'client') await clients[args[0]](args[1]);
else serve(...args);
