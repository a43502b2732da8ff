// How figures are written, and what the end of a connection means. This module does not know the
// page.

const CODES = {
  1000: ['normal closure', 'The server has finished with this connection.'],
  1001: ['going away', 'The server is shutting down or restarting.'],
  1002: ['protocol error', 'The server says that it received something RFC 6455 forbids.'],
  1003: ['unsupported data', 'The server does not take messages of this type. Try text instead of '
    + 'binary, or the other way round.'],
  1005: ['no code', 'The close frame contained no code.'],
  1007: ['invalid data', 'The server received text that is not UTF-8, or data it cannot inflate.'],
  1008: ['policy violation',
    'The server refuses what was sent, or who sent it. Its log says more.'],
  1009: ['message too big', 'A message was larger than the server accepts. See fastws echo '
    + '--max-message-size, or the limit of your server.'],
  1010: ['extension missing', 'An extension that the client needs was not agreed on.'],
  1011: ['internal error', 'The server failed, or heard nothing from this page for too long. Its '
    + 'log says more.'],
  1012: ['service restart', 'The server restarts. Reconnect after a short time.'],
  1013: ['try again later', 'The server has too much to do. Reconnect later.'],
  1014: ['bad gateway', 'A proxy got an invalid answer from the server behind it.'],
};

export const number = (value) => value.toLocaleString('en');
export const plural = (count, noun) => number(count) + ' ' + noun + (count === 1 ? '' : 's');

export function size(octets) {
  if (octets < 1024) return octets + ' B';
  const power = octets < 1024 ** 2 ? 1 : 2;
  const value = octets / 1024 ** power;
  return value.toFixed(value < 10 && value % 1 ? 1 : 0) + (power === 1 ? ' KiB' : ' MiB');
}

export function duration(milliseconds) {
  if (milliseconds < 10) return milliseconds.toFixed(2) + ' ms';
  if (milliseconds < 1000) return milliseconds.toFixed(milliseconds < 100 ? 1 : 0) + ' ms';
  const seconds = milliseconds / 1000;
  if (seconds < 60) return seconds.toFixed(seconds < 10 ? 1 : 0) + ' s';
  return Math.floor(seconds / 60) + ' min ' + Math.round(seconds % 60) + ' s';
}

export function time(milliseconds) {
  const date = new Date(milliseconds);
  return date.toTimeString().slice(0, 8) + '.' + String(date.getMilliseconds()).padStart(3, '0');
}

export const hex = (octets) =>
  Array.from(octets, (octet) => octet.toString(16).padStart(2, '0')).join(' ');

// The bytes of a hexadecimal text, however it is separated; null if it is something else.
export function unhex(text) {
  const digits = text.replace(/0x|[\s,:]/gi, '');
  if (digits.length % 2 || /[^0-9a-f]/i.test(digits)) return null;
  return Uint8Array.from(digits.match(/../g) ?? [], (pair) => parseInt(pair, 16));
}

// `across`: bytes per line.
export function dump(octets, across) {
  const lines = [];
  for (let at = 0; at < octets.length; at += across) {
    const part = octets.subarray(at, at + across);
    const text = Array.from(part, (octet) =>
      octet > 31 && octet < 127 ? String.fromCharCode(octet) : '.').join('');
    lines.push(at.toString(16).padStart(4, '0') + '  ' + hex(part).padEnd(across * 3 + 1) + text);
  }
  return lines.join('\n');
}

// Complete what people type: "localhost:8080", ":8080", "/path" and http:// URLs.
export function complete(text, here = location) {
  const secure = here.protocol === 'https:';
  const url = text.trim();
  if (/^https?:\/\//i.test(url)) return url.replace(/^http/i, 'ws');
  if (/^[a-z][a-z0-9+.-]*:\/\//i.test(url)) return url;
  if (url.startsWith('//')) return (secure ? 'wss:' : 'ws:') + url;
  if (url.startsWith('/')) return (secure ? 'wss://' : 'ws://') + here.host + url;
  return 'ws://' + (url.startsWith(':') ? 'localhost' : '') + url;
}

// Explain why a WebSocket could not even be made.
export function explainRefusal(error, url) {
  const checks = [];
  if (location.protocol === 'https:' && url.startsWith('ws:')) {
    checks.push('This page came over https, so the browser allows wss:// only.');
  }
  if (error.name === 'SyntaxError') {
    checks.push('A URL looks like ws://localhost:8080/chat or wss://example.com.',
      'Subprotocols are tokens, separated by commas, without repetition.');
  }
  return {title: 'Not connected', why: error.message, checks, calm: false};
}

// Explain the end of a connection. `how` contains the code, reason and wasClean of the event; url;
// opened and silent (for how long the connection was open, and nothing was received, in ms;
// opened is null if it was never open); closing (whether this page began to close it).
export function explainClose(how) {
  const {code, reason, wasClean, url, opened, silent, closing} = how;
  const secure = url.startsWith('wss:');
  const host = new URL(url).host;
  const quoted = reason ? ' “' + reason + '”' : '';
  if (closing && opened === null) {
    return {title: 'Not connected', calm: true, checks: [],
      why: 'The connection was closed before it was open.'};
  }
  if (code === 1006 && opened === null) {
    const checks = ['Does a server listen on ' + host + '?',
      'Does it accept WebSockets on this path? If it answered with an HTTP status, the network '
        + 'tab of the developer tools shows it.',
      'Does it allow pages from ' + location.origin + '? Many servers check the origin.'];
    if (secure) {
      checks.push('Does the browser trust its certificate? Open https://' + host
        + ' in a tab to see. Does it speak TLS at all? If not, try ws://.');
    } else {
      checks.push('Does the server expect TLS? Then try wss://.');
    }
    return {title: 'Could not connect to ' + host, calm: false, checks,
      why: 'The browser does not tell pages why (code 1006), so that they cannot explore '
        + 'your network.'};
  }
  if (code === 1006) {
    const checks = ['Did the server crash, or was it killed? Its log may say more.',
      'Was the network interrupted, or did the computer sleep?'];
    if (silent > 20000) {
      checks.unshift('Nothing was received for ' + duration(silent) + '. Proxies cut idle '
        + 'connections, often after 60 s: does the server send pings?');
    }
    return {title: 'Connection lost (code 1006)', calm: false, checks,
      why: 'It ended without a close frame, after ' + duration(opened) + '. Code 1006 never '
        + 'travels: the browser uses it for exactly this.'};
  }
  const range = code < 4000 ? 'Codes from 3000 to 3999 belong to libraries and frameworks.'
    : 'Codes from 4000 to 4999 belong to applications: see the server’s documentation.';
  const [name, meaning] = CODES[code] ?? (code < 3000 ? ['unknown code', 'RFC 6455 reserves it.']
    : [code < 4000 ? 'library’s code' : 'application’s code', range]);
  const calm = closing || code === 1000 || code === 1001 || code === 1005 || code === 1012;
  return {title: 'Closed with ' + code + ', ' + name + quoted, calm, checks: [],
    why: (closing ? 'This page closed the connection, and the server answered.' : meaning)
      + (wasClean ? '' : ' The connection was not closed cleanly: messages may be lost.')};
}
