// The form that sends messages: text, bytes, files; once, or on a timer. This module knows drafts
// and their history. It does not know connections.

import {plural, size, unhex} from './words.js';

const MAX_HISTORY = 100;
const MAX_FILE = 256 << 20; // bytes
const MAX_KEPT = 1 << 16; // bytes of a binary message that the log keeps
const MAX_BUFFERED = 1 << 20; // bytes, when messages are sent without an interval
const AT_ONCE = 500;
const MAX_LINES = 8;

export class Composer {
  // `socket()` returns the WebSocket.
  constructor(byId, log, socket) {
    this.byId = byId;
    this.log = log;
    this.socket = socket;
    this.history = [];
    this.at = 0; // which draft of the history is shown
    this.timer = null;
    const text = byId('text');
    text.addEventListener('keydown', (event) => this.onKey(event));
    text.addEventListener('input', () => this.fit());
    byId('message').addEventListener('submit', (event) => {
      event.preventDefault();
      this.submit();
    });
    byId('file').addEventListener('click', () => byId('chosen').click());
    byId('chosen').addEventListener('change', () => this.sendFile());
    byId('repeat').addEventListener('click', () => (this.timer ? this.stop() : this.start()));
  }

  get isOpen() {
    return this.socket()?.readyState === WebSocket.OPEN;
  }

  update() {
    for (const id of ['send', 'file']) this.byId(id).disabled = !this.isOpen;
    if (!this.isOpen && this.timer) this.stop();
    this.byId('repeat').disabled = !this.isOpen && !this.timer;
  }

  fit() {
    const text = this.byId('text');
    text.rows = Math.min(MAX_LINES, text.value.split('\n').length);
  }

  onKey(event) {
    const text = event.target;
    if (event.isComposing || event.ctrlKey || event.altKey || event.metaKey) return;
    if (event.key === 'Enter' && !event.shiftKey) {
      event.preventDefault();
      this.submit();
    } else if (event.key === 'ArrowUp' && !event.shiftKey) {
      if (!text.value.slice(0, text.selectionStart).includes('\n')) this.recall(-1, event);
    } else if (event.key === 'ArrowDown' && !event.shiftKey) {
      if (!text.value.slice(text.selectionEnd).includes('\n')) this.recall(1, event);
    }
  }

  recall(step, event) {
    const to = this.at + step;
    if (to < 0 || to > this.history.length) return;
    if (this.at === this.history.length) this.draft = this.byId('text').value;
    event.preventDefault();
    this.at = to;
    this.byId('text').value = to === this.history.length ? this.draft : this.history[to];
    this.fit();
  }

  // The message in the form; null if it is not one.
  message() {
    const text = this.byId('text').value;
    if (this.byId('type').value === 'text') return text;
    const octets = unhex(text);
    if (!octets) this.log.note('error', 'not hexadecimal bytes: ' + text);
    return octets;
  }

  submit() {
    if (!this.isOpen) return;
    const message = this.message();
    if (message === null) return;
    this.send(message);
    const text = this.byId('text');
    this.remember(text.value);
    text.value = '';
    this.fit();
    text.focus();
  }

  remember(text) {
    if (text && this.history.at(-1) !== text) this.history.push(text);
    if (this.history.length > MAX_HISTORY) this.history.shift();
    this.at = this.history.length;
  }

  send(message) {
    this.socket().send(message);
    if (typeof message === 'string') this.log.sent(message);
    else this.log.sent(message.buffer, message.buffer.slice(0, MAX_KEPT));
  }

  async sendFile() {
    const chosen = this.byId('chosen');
    const file = chosen.files[0];
    chosen.value = '';
    if (!file) return;
    if (file.size > MAX_FILE) {
      this.log.note('error', file.name + ' has ' + size(file.size) + '; this page sends up to '
        + size(MAX_FILE));
      return;
    }
    const octets = new Uint8Array(await file.arrayBuffer());
    if (!this.isOpen) return;
    this.log.note('note', 'sending ' + file.name + ' in one binary message');
    this.send(octets);
  }

  // Repeating ---------------------------------------------------------------------------------

  start() {
    const message = this.message();
    const times = this.byId('times');
    const interval = this.byId('interval');
    if (message === null || !times.reportValidity() || !interval.reportValidity()) return;
    this.remember(this.byId('text').value);
    let left = times.value === '' ? Infinity : Number(times.value);
    const pause = Number(interval.value);
    this.begun = this.sent = 0;
    this.show(true);
    const step = () => {
      let count = pause ? 1 : AT_ONCE;
      while (count-- && left > 0 && this.isOpen
        && (pause || this.socket().bufferedAmount < MAX_BUFFERED)) {
        this.send(message);
        this.sent += 1;
        left -= 1;
      }
      if (left > 0 && this.isOpen) this.timer = setTimeout(step, pause);
      else this.stop();
    };
    step();
  }

  stop() {
    clearTimeout(this.timer);
    this.timer = null;
    this.show(false);
    this.log.note('note', 'sent ' + plural(this.sent, 'message') + ' on the timer');
    this.update();
  }

  show(runs) {
    this.byId('repeat').textContent = runs ? 'Stop' : 'Start';
    this.byId('repeat').setAttribute('aria-pressed', runs);
  }
}
