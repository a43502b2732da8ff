// The log: everything that was sent and received, as far as it is kept, and the view of it. This
// module knows entries, filters and round trips. It does not know connections.

import {List} from './list.js';
import {dump, duration, hex, number, plural, size, time} from './words.js';

const MAX_ENTRIES = 50000;
const MAX_HELD = 64 << 20; // bytes, roughly
const MAX_PENDING = 10000; // sent messages that may still come back
const MAX_BINARY = 1 << 16; // bytes of a binary message that are kept
const MAX_SHOWN = 1 << 16; // characters of a message in the detail view
const MAX_LINE = 300; // characters of a message in a row
const AHEAD = 16; // pending messages that one received message is compared with
const ANNOUNCE = 1000; // ms; screen readers hear of messages no more often

const SIGNS = {sent: '↑', received: '↓', note: '·', error: '!'};
const encoder = new TextEncoder();

const sizeOf = (entry) =>
  entry.size ?? (entry.size = typeof entry.data === 'string'
    ? encoder.encode(entry.data).length : entry.data.byteLength);

const weigh = ({data}) => typeof data === 'string' ? data.length : data.byteLength;
const isMessage = (entry) => entry.kind === 'sent' || entry.kind === 'received';
const wallClock = (entry) => performance.timeOrigin + entry.at;

function same(a, b) {
  if (typeof a === 'string' || typeof b === 'string') return a === b;
  if (a.byteLength !== b.byteLength) return false;
  // Enough of it to be sure.
  const left = new Uint8Array(a, 0, Math.min(a.byteLength, 4096));
  const right = new Uint8Array(b, 0, left.length);
  return left.every((octet, i) => octet === right[i]);
}

function line(entry) {
  if (typeof entry.data === 'string') {
    const start = entry.data.slice(0, MAX_LINE);
    return start.replace(/\r?\n/g, ' ↵ ') + (entry.data.length > MAX_LINE ? ' …' : '');
  }
  return hex(new Uint8Array(entry.data, 0, Math.min(entry.data.byteLength, 64)));
}

function pretty(text) {
  if (!/^\s*[[{]/.test(text)) return text;
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text;
  }
}

export class Log {
  constructor(byId, copy, save) {
    this.byId = byId;
    this.entries = [];
    this.forget();
    this.disconnect();
    this.paused = false;
    this.drawing = false;
    this.announcing = null;
    this.list = new List(byId('log'), fill, (entry) => this.open(entry));
    for (const id of ['filter', 'kinds']) byId(id).addEventListener('input', () => this.sift());
    byId('pretty').addEventListener('change', () => this.open(this.list.selected));
    byId('pause').addEventListener('click', () => this.pause());
    byId('clear').addEventListener('click', () => this.clear());
    byId('copy').addEventListener('click', (event) =>
      copy(this.list.items.map(asLine).join('\n') + '\n', event.target));
    byId('download').addEventListener('click', () =>
      save(this.list.items.map((entry) => JSON.stringify(asRecord(entry)) + '\n'),
        'fastws-messages.jsonl'));
    this.copy = copy;
    this.sift();
  }

  // Adding ------------------------------------------------------------------------------------

  note(kind, text) {
    this.add({kind, data: text, at: performance.now(), trip: null, size: null});
  }

  sent(data, trimmed = data) {
    const at = performance.now();
    const entry = {kind: 'sent', data: trimmed, at, trip: null, size: null};
    if (data !== trimmed) entry.size = data.byteLength;
    const {pending} = this;
    if (pending.length - this.next > MAX_PENDING) this.next += 1;
    pending.push(entry);
    if (this.next > 1000 && this.next * 2 > pending.length) {
      pending.splice(0, this.next);
      this.next = 0;
    }
    this.counts.sent += 1;
    this.add(entry);
  }

  // A server that echoes returns messages in order. It may leave some out, and send others, which
  // have no round trip.
  received(data, at) {
    let trip = null;
    let kept = data;
    let length = null;
    if (typeof data !== 'string' && data.byteLength > MAX_BINARY) {
      kept = data.slice(0, MAX_BINARY);
      length = data.byteLength;
    }
    const end = Math.min(this.pending.length, this.next + AHEAD);
    for (let i = this.next; i < end; i++) {
      const sent = this.pending[i];
      if ((length === null || length === sizeOf(sent)) && same(sent.data, kept)) {
        trip = sent.trip = at - sent.at;
        this.next = i + 1;
        break;
      }
    }
    this.counts.received += 1;
    this.add({kind: 'received', data: kept, at, trip, size: length});
  }

  // A new connection: no message of the old one comes back.
  disconnect() {
    this.pending = [];
    this.next = 0;
  }

  add(entry) {
    this.entries.push(entry);
    this.held += weigh(entry);
    // (A page in the background draws nothing, but must not keep everything.)
    if (this.entries.length > MAX_ENTRIES * 1.2 || this.held > MAX_HELD * 1.2) this.trim();
    if (!this.drawing) {
      this.drawing = true;
      requestAnimationFrame(() => {
        this.drawing = false;
        this.draw();
      });
    }
  }

  trim() {
    const {entries} = this;
    let count = Math.max(0, entries.length - MAX_ENTRIES);
    for (let i = 0; i < count; i++) this.held -= weigh(entries[i]);
    while (this.held > MAX_HELD && count < entries.length - 1) {
      this.held -= weigh(entries[count]);
      count += 1;
    }
    if (!count) return;
    const last = entries[count - 1];
    let gone = count;
    if (this.shown !== entries) {
      gone = 0;
      while (gone < this.shown.length && this.shown[gone].at <= last.at) gone += 1;
      this.shown.splice(0, gone);
    }
    entries.splice(0, count);
    this.sifted = Math.max(0, this.sifted - count);
    this.dropped += count;
    this.gone += gone;
  }

  forget() {
    this.entries.length = 0;
    this.shown = this.entries; // those that pass the filter
    this.sifted = 0; // how many entries the filter has seen
    this.held = 0;
    this.dropped = 0; // entries that are no longer kept
    this.gone = 0; // those of them that the list still has
    this.counts = {sent: 0, received: 0};
  }

  // Showing -----------------------------------------------------------------------------------

  clear() {
    this.forget();
    this.list.choose(null);
    this.sift();
  }

  pause() {
    this.paused = !this.paused;
    this.frozen = this.paused ? [...this.shown] : null;
    this.byId('pause').setAttribute('aria-pressed', this.paused);
    this.byId('pause').textContent = this.paused ? 'Resume' : 'Pause';
    this.gone = 0;
    this.draw();
  }

  sift() {
    const kind = this.byId('kinds').value;
    const text = this.byId('filter').value.toLowerCase();
    this.passes = !kind && !text ? null : (entry) =>
      (!kind || entry.kind === kind || (kind === 'note' && entry.kind === 'error'))
      && (!text || (typeof entry.data === 'string' ? entry.data : line(entry))
        .toLowerCase().includes(text));
    this.shown = this.passes ? [] : this.entries;
    this.sifted = 0;
    this.gone = 0;
    if (this.paused) this.frozen = this.entries.filter(this.passes ?? (() => true));
    this.draw();
  }

  draw() {
    this.trim();
    const {entries, passes, shown} = this;
    if (passes) {
      for (; this.sifted < entries.length; this.sifted++) {
        if (passes(entries[this.sifted])) shown.push(entries[this.sifted]);
      }
    }
    this.list.show(this.paused ? this.frozen : shown, this.paused ? 0 : this.gone);
    if (!this.paused) this.gone = 0;
    this.count();
  }

  count() {
    const {sent, received} = this.counts;
    const words = [plural(sent, 'message') + ' sent', number(received) + ' received'];
    if (this.passes) words.push(number(this.list.items.length) + ' match the filter');
    if (this.paused) words.push('paused, and still recording');
    if (this.dropped) {
      words.push('the oldest ' + plural(this.dropped, 'entry').replace('entrys', 'entries')
        + (this.dropped === 1 ? ' is' : ' are') + ' no longer kept');
    }
    this.byId('count').textContent =
      sent + received || this.entries.length ? words.join(' · ') : 'no messages yet';
    // Screen readers get a summary now and then, not each message.
    if (received && received !== this.announced) {
      this.announcing ??= setTimeout(() => this.announce(), ANNOUNCE);
    }
  }

  announce() {
    this.announcing = null;
    this.announced = this.counts.received;
    const last = this.entries.findLast((entry) => entry.kind === 'received');
    this.byId('heard').textContent = number(this.announced) + ' received'
      + (last ? ', the last: ' + line(last) : '');
  }

  open(entry) {
    const view = this.byId('detail');
    view.hidden = !entry;
    if (!entry) return;
    const isText = typeof entry.data === 'string';
    const octets = isText ? null : new Uint8Array(entry.data);
    const content = isText ? (this.byId('pretty').checked ? pretty(entry.data) : entry.data)
      : dump(octets.subarray(0, MAX_SHOWN / 16), view.clientWidth > 620 ? 16 : 8);
    const head = document.createElement('header');
    head.className = 'tools';
    const title = document.createElement('h2');
    title.textContent = {sent: 'Sent', received: 'Received'}[entry.kind] ?? 'Event';
    const gap = document.createElement('span');
    gap.className = 'gap';
    const copy = button('Copy', () =>
      this.copy(isText ? content : hex(octets), copy));
    const close = button('Close', () => this.list.choose(null));
    head.append(title, gap, copy, close);
    const about = document.createElement('p');
    about.className = 'dim';
    about.textContent = [time(wallClock(entry)),
      ...isMessage(entry) ? [isText ? 'text' : 'binary', number(sizeOf(entry)) + ' bytes'] : [],
      ...entry.trip === null ? [] : ['round trip ' + duration(entry.trip)]].join(' · ');
    const body = document.createElement('pre');
    body.tabIndex = 0;
    body.className = isText ? '' : 'dump';
    body.textContent = content.slice(0, MAX_SHOWN);
    view.replaceChildren(head, about, body);
    const kept = isText ? content.length : Math.min(octets.length, MAX_SHOWN / 16);
    const all = isText ? content.length : sizeOf(entry);
    if (kept < all || kept > MAX_SHOWN) {
      const more = document.createElement('p');
      more.className = 'dim';
      more.textContent = 'the first ' + number(Math.min(kept, MAX_SHOWN)) + ' of ' + number(all)
        + (isText ? ' characters' : ' bytes');
      view.append(more);
    }
  }
}

function button(text, act) {
  const made = document.createElement('button');
  made.type = 'button';
  made.textContent = text;
  made.addEventListener('click', act);
  return made;
}

function fill(cells, entry) {
  const message = isMessage(entry);
  cells[0].textContent = time(wallClock(entry));
  cells[1].textContent = SIGNS[entry.kind];
  cells[1].setAttribute('role', 'img');
  cells[1].setAttribute('aria-label', entry.kind === 'note' ? 'event' : entry.kind);
  cells[2].textContent = !message ? '' : typeof entry.data === 'string' ? 'text' : 'binary';
  cells[3].textContent = message ? size(sizeOf(entry)) : '';
  cells[4].textContent = entry.kind !== 'received' || entry.trip === null ? ''
    : duration(entry.trip);
  cells[5].textContent = line(entry);
  return entry.kind;
}

const asLine = (entry) => [time(wallClock(entry)), SIGNS[entry.kind],
  typeof entry.data === 'string' ? entry.data : hex(new Uint8Array(entry.data))].join(' ');

function asRecord(entry) {
  const record = {time: new Date(wallClock(entry)).toISOString(), kind: entry.kind};
  if (isMessage(entry)) record.size = sizeOf(entry);
  if (entry.trip !== null) record.round_trip_ms = +entry.trip.toFixed(3);
  if (typeof entry.data === 'string') record.text = entry.data;
  else record.hex = hex(new Uint8Array(entry.data)).replaceAll(' ', '');
  return record;
}
