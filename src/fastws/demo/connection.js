// One connection after the other: opening, closing, and reconnecting with growing delays. This
// module knows which of them is the current one. It does not know what becomes of messages.

import {explainClose, explainRefusal} from './words.js';

const FIRST_DELAY = 1000;
const LONGEST_DELAY = 30000;
// A connection that was open for so long ends a series of failures.
const STEADY = 5000;

export class Connection {
  // `hooks`: began(), changed(), received(data, at), noted(kind, text), explained(explanation or
  // null).
  // `reconnects()` tells whether the user wants to reconnect.
  constructor(hooks, reconnects) {
    this.hooks = hooks;
    this.reconnects = reconnects;
    this.socket = null;
    this.number = 0;
    this.failures = 0;
    this.timer = null;
    this.due = null; // when the next attempt begins, or null
    this.lost = false;
  }

  get state() {
    if (this.due !== null) return 'waiting';
    return ['connecting', 'open', 'closing', 'closed'][this.socket ? this.socket.readyState : 3];
  }

  // Connect, instead of the current connection.
  connect(url, protocols) {
    this.cancel();
    const old = this.socket;
    this.socket = null;
    if (old && old.readyState < WebSocket.CLOSING) {
      old.onmessage = null;
      old.closing = true;
      old.close(1000);
    }
    this.failures = 0;
    this.open(url, protocols);
  }

  open(url, protocols) {
    const {hooks} = this;
    let ws;
    hooks.explained(null);
    this.lost = false;
    try {
      ws = new WebSocket(url, protocols);
    } catch (error) {
      this.lost = true;
      hooks.noted('error', error.message);
      hooks.explained(explainRefusal(error, url));
      hooks.changed();
      return;
    }
    hooks.began();
    const number = ++this.number;
    let opened = null;
    let heard = null;
    this.socket = ws;
    ws.binaryType = 'arraybuffer';
    ws.onopen = () => {
      opened = heard = performance.now();
      hooks.noted('note', 'connection ' + number + ' is open: '
        + (ws.protocol ? 'subprotocol ' + ws.protocol : 'no subprotocol') + ', '
        + (ws.extensions || 'no extensions'));
      if (this.socket === ws) hooks.changed();
    };
    ws.onmessage = (event) => {
      heard = performance.now();
      hooks.received(event.data, heard);
    };
    // onerror says nothing that onclose, which always follows, does not say as well.
    ws.onclose = (event) => {
      const now = performance.now();
      const how = {code: event.code, reason: event.reason, wasClean: event.wasClean, url: ws.url,
        opened: opened === null ? null : now - opened, silent: now - heard, closing: ws.closing};
      const explanation = explainClose(how);
      hooks.noted(explanation.calm ? 'note' : 'error',
        'connection ' + number + ' closed: code ' + event.code
        + (event.reason ? ', reason “' + event.reason + '”' : '')
        + (event.wasClean ? ', clean' : ', not clean'));
      if (this.socket !== ws) return; // another one is the current one
      this.lost = !explanation.calm;
      hooks.explained(explanation);
      if (how.opened > STEADY) this.failures = 0;
      if (!ws.closing && this.reconnects()) this.wait(url, protocols);
      hooks.changed();
    };
    hooks.noted('note', 'connection ' + number + ' to ' + ws.url);
    hooks.changed();
  }

  wait(url, protocols) {
    // With some randomness, so that not all clients of a server come back at once.
    const delay = Math.min(FIRST_DELAY * 2 ** this.failures, LONGEST_DELAY);
    const chosen = delay * (0.75 + Math.random() / 4);
    this.failures += 1;
    this.due = performance.now() + chosen;
    this.timer = setTimeout(() => {
      this.due = null;
      this.open(url, protocols);
    }, chosen);
  }

  get countdown() {
    if (this.due === null) return '';
    const seconds = Math.max(1, Math.ceil((this.due - performance.now()) / 1000));
    return 'to reconnect in ' + seconds + ' s';
  }

  cancel() {
    clearTimeout(this.timer);
    this.due = null;
  }

  // Close with a code, or undefined, and a reason; or give up reconnecting.
  close(code, reason) {
    this.cancel();
    if (this.socket && this.socket.readyState < WebSocket.CLOSING) {
      try {
        if (code === undefined) this.socket.close();
        else this.socket.close(code, reason);
        this.socket.closing = true;
      } catch (error) {
        this.hooks.noted('error', error.message);
      }
    }
    this.hooks.changed();
  }
}
