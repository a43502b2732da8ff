// The frames of all connections, as the server saw them. This module knows the channel of
// `fastws echo --inspect` and the bits of a frame header (RFC 6455 §5.2).

import {List} from './list.js';
import {dump, hex, number, plural, size, time} from './words.js';

const MAX_FRAMES = 500;
const OPCODES = {0: 'continuation', 1: 'text', 2: 'binary', 8: 'close', 9: 'ping', 10: 'pong'};
const FIRST_DELAY = 2000; // ms, before the next attempt to reach the channel
const LONGEST_DELAY = 60000;

const octetsOf = (text) =>
  Uint8Array.from(text.match(/../g) ?? [], (pair) => parseInt(pair, 16));

export class Frames {
  constructor(byId) {
    this.byId = byId;
    this.frames = [];
    this.missed = 0;
    this.paused = false;
    this.socket = null;
    this.delay = FIRST_DELAY;
    this.list = new List(byId('frame-list'), fill, (frame) => this.open(frame));
    byId('hold').addEventListener('click', () => {
      this.paused = !this.paused;
      byId('hold').setAttribute('aria-pressed', this.paused);
      byId('hold').textContent = this.paused ? 'Resume' : 'Pause';
      if (!this.paused) this.ask();
    });
    byId('clear-frames').addEventListener('click', () => this.clear());
  }

  clear() {
    this.frames = [];
    this.missed = 0;
    this.list.choose(null);
    this.draw();
  }

  // The server has a channel for frames. Listen from now on.
  connect() {
    const {byId} = this;
    byId('no-frames').hidden = true;
    byId('inspector').hidden = false;
    const scheme = location.protocol === 'https:' ? 'wss://' : 'ws://';
    const socket = new WebSocket(scheme + location.host + '/inspect');
    this.socket = socket;
    let opened = false;
    socket.onopen = () => {
      opened = true;
      byId('channel').textContent = 'All connections to this server, as the server sees them.';
      this.delay = FIRST_DELAY;
      this.clear(); // the server sends the last frames again
      this.ask();
    };
    socket.onmessage = (event) => {
      // (A server that was started again, without --inspect, is an echo here as well.)
      if (event.data === 'next') socket.close();
      else this.take(JSON.parse(event.data));
    };
    socket.onclose = () => {
      byId('channel').textContent = opened ? 'The server does not show its frames anymore.'
        : 'The server does not show its frames. Is it running? It shows them only to a page that '
          + 'was opened with an IP address, with localhost, or with the server’s own --host.';
      setTimeout(() => this.connect(), this.delay);
      this.delay = Math.min(this.delay * 2, LONGEST_DELAY);
    };
  }

  // The server sends one batch for each request.
  ask() {
    const {socket} = this;
    if (this.paused || this.asked === socket || socket?.readyState !== WebSocket.OPEN) return;
    this.asked = socket;
    socket.send('next');
  }

  take(batch) {
    this.asked = null;
    const dropped = Math.max(0, this.frames.length + batch.frames.length - MAX_FRAMES);
    this.missed += batch.missed + dropped;
    this.frames = [...this.frames, ...batch.frames].slice(-MAX_FRAMES);
    this.draw(dropped);
    requestAnimationFrame(() => this.ask());
  }

  draw(dropped = 0) {
    this.list.show(this.frames, dropped);
    this.byId('frame-count').textContent = !this.frames.length ? 'no frames yet'
      : plural(this.frames.length, 'frame') + (this.missed
        ? ' · ' + number(this.missed) + ' older ones are no longer kept' : '');
  }

  open(frame) {
    const view = this.byId('frame');
    view.hidden = !frame;
    if (!frame) return;
    const head = octetsOf(frame.head);
    const payload = octetsOf(frame.payload);
    const opcode = head[0] & 15;
    const masked = head[1] >> 7;
    const key = masked ? head.slice(-4) : null;
    const length = head[1] & 127;
    const extended = head.slice(2, head.length - (masked ? 4 : 0));
    const title = document.createElement('header');
    title.className = 'tools';
    const heading = document.createElement('h2');
    heading.textContent = (frame.sent ? 'Sent to ' : 'Received from ') + frame.peer;
    const gap = document.createElement('span');
    gap.className = 'gap';
    const close = document.createElement('button');
    close.type = 'button';
    close.textContent = 'Close';
    close.addEventListener('click', () => this.list.choose(null));
    title.append(heading, gap, close);

    const parts = document.createElement('dl');
    parts.className = 'parts';
    const part = (name, value) => {
      const term = document.createElement('dt');
      const description = document.createElement('dd');
      term.textContent = name;
      description.textContent = value;
      parts.append(term, description);
    };
    part('Header', hex(head));
    part('FIN', head[0] >> 7 ? '1: the message ends with this frame' : '0: more frames follow');
    const reserved = head[0] >> 4 & 7;
    part('RSV1–3', reserved === 4 ? '100: compressed (permessage-deflate), if that was agreed on'
      : reserved ? reserved.toString(2).padStart(3, '0') + ': not allowed' : '000');
    part('Opcode', opcode + ': ' + (OPCODES[opcode] ?? 'reserved'));
    part('Mask', masked ? '1: masked, as a client must' : '0: not masked, as a server must not');
    part('Length', length + (length === 126 ? ': the next 2 bytes contain it: '
      : length === 127 ? ': the next 8 bytes contain it: ' : '')
      + (extended.length ? hex(extended) + ' = ' + number(frame.size) : ''));
    if (key) part('Mask key', hex(key));
    part('Payload', number(frame.size) + ' bytes'
      + (payload.length < frame.size ? ', of which ' + payload.length + ' are here' : '')
      + (frame.complete ? '' : '; the connection ended before all of it had arrived'));
    view.replaceChildren(title, bits(head), parts);

    const clear = key ? payload.map((octet, i) => octet ^ key[i & 3]) : payload;
    if (opcode === 8 && clear.length > 1) part('Close code', (clear[0] << 8) + clear[1]);
    if (payload.length) {
      const across = view.clientWidth > 620 ? 16 : 8;
      if (key) view.append(...block('Payload on the wire', dump(payload, across)));
      view.append(...block(key ? 'Payload, unmasked' : 'Payload', dump(clear, across)));
    }
  }
}

function block(name, text) {
  const title = document.createElement('p');
  title.className = 'dim';
  title.textContent = name;
  const body = document.createElement('pre');
  body.className = 'dump';
  body.tabIndex = 0;
  body.textContent = text;
  return [title, body];
}

// The first two bytes, bit by bit.
function bits(head) {
  const table = document.createElement('table');
  table.className = 'bits';
  for (const [octet, fields] of [
    [head[0], [['FIN', 1], ['RSV1', 1], ['RSV2', 1], ['RSV3', 1], ['opcode', 4]]],
    [head[1], [['MASK', 1], ['length', 7]]],
  ]) {
    const names = table.insertRow();
    const values = table.insertRow();
    let at = 8;
    for (const [name, width] of fields) {
      const title = document.createElement('th');
      title.colSpan = width;
      title.scope = 'col';
      title.textContent = name;
      names.append(title);
      for (let i = 0; i < width; i++) {
        const cell = values.insertCell();
        at -= 1;
        cell.textContent = octet >> at & 1;
        if (octet >> at & 1) cell.className = 'on';
      }
    }
  }
  return table;
}

function fill(cells, frame) {
  const head = octetsOf(frame.head);
  const reserved = head[0] >> 4 & 7;
  cells[0].textContent = time(frame.time);
  cells[1].textContent = frame.sent ? '↑' : '↓';
  cells[1].setAttribute('role', 'img');
  cells[1].setAttribute('aria-label', frame.sent ? 'sent by the server' : 'received by the server');
  cells[2].textContent = (OPCODES[head[0] & 15] ?? 'reserved') + (head[0] >> 7 ? '' : ' …')
    + [4, 2, 1].map((bit, i) => (reserved & bit ? ', RSV' + (i + 1) : '')).join('');
  cells[3].textContent = size(frame.size);
  cells[4].textContent = '#' + frame.connection;
  cells[5].textContent = hex(head) + '  ' + hex(octetsOf(frame.payload).slice(0, 32));
  return frame.sent ? 'sent' : 'received';
}
