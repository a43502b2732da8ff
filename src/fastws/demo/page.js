// Puts the parts of the page together: the form of the connection, the tabs, the clipboard.

import {Composer} from './composer.js';
import {Connection} from './connection.js';
import {Frames} from './frames.js';
import {Log} from './log.js';
import {Measure} from './measure.js';
import {complete} from './words.js';

const byId = (id) => document.getElementById(id);

// The clipboard ----------------------------------------------------------------------------------

async function copy(text, button) {
  let done = false;
  try {
    await navigator.clipboard.writeText(text);
    done = true;
  } catch {
    // Over plain http, and if the user forbids it, there is only the old way.
    const field = document.createElement('textarea');
    field.value = text;
    field.className = 'unseen';
    document.body.append(field);
    field.select();
    done = document.execCommand('copy');
    field.remove();
    button.focus();
  }
  const before = button.textContent;
  button.textContent = done ? 'Copied' : 'Not copied';
  setTimeout(() => { button.textContent = before; }, 1500);
}

function save(parts, name) {
  const link = document.createElement('a');
  link.href = URL.createObjectURL(new Blob(parts, {type: 'application/jsonl'}));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

// The connection ---------------------------------------------------------------------------------

function target() {
  byId('url').value = complete(byId('url').value);
  const protocols = byId('protocols').value.split(/[\s,]+/).filter(Boolean);
  return {url: byId('url').value, protocols};
}

function connect() {
  const {url, protocols} = target();
  connection.connect(url, protocols);
}

function explain(explanation) {
  byId('notice').hidden = !explanation;
  if (!explanation) return;
  byId('notice').className = explanation.calm ? 'calm' : '';
  byId('notice').setAttribute('role', explanation.calm ? 'status' : 'alert');
  byId('what').textContent = explanation.title;
  byId('why').textContent = explanation.why;
  byId('checks').hidden = !explanation.checks.length;
  byId('checks').replaceChildren(...explanation.checks.map((check) => {
    const item = document.createElement('li');
    item.textContent = check;
    return item;
  }));
}

let ticking = null;

function update() {
  const {state} = connection;
  byId('state').textContent = state;
  byId('state').dataset.state = state === 'closed' && connection.lost ? 'lost' : state;
  byId('close').textContent = connection.due === null ? 'Close' : 'Stop';
  byId('close').disabled = state === 'closing' || state === 'closed';
  byId('connect').textContent = connection.number ? 'Reconnect' : 'Connect';
  byId('countdown').textContent = connection.countdown;
  clearTimeout(ticking);
  if (connection.due !== null) ticking = setTimeout(update, 500);
  composer.update();
}

const log = new Log(byId, copy, save);
const connection = new Connection({
  began: () => log.disconnect(),
  changed: () => update(),
  received: (data, at) => log.received(data, at),
  noted: (kind, text) => log.note(kind, text),
  explained: explain,
}, () => byId('reconnect').checked);
const composer = new Composer(byId, log, () => connection.socket);
const measure = new Measure(byId, target, copy);
const frames = new Frames(byId);

byId('connection').addEventListener('submit', (event) => {
  event.preventDefault();
  // (A close code that may not be sent must not keep anybody from connecting.)
  if (byId('url').reportValidity()) connect();
});

byId('close').addEventListener('click', () => {
  const field = byId('code');
  if (!field.validity.valid) {
    field.closest('details').open = true;
    field.reportValidity();
    return;
  }
  const code = field.value;
  connection.close(code === '' ? undefined : Number(code), byId('reason').value);
});

byId('dismiss').addEventListener('click', () => {
  explain(null);
  byId('url').focus();
});

// The tabs ---------------------------------------------------------------------------------------

const tabs = [...document.querySelectorAll('[role="tab"]')];

function show(tab) {
  for (const other of tabs) {
    const chosen = other === tab;
    other.setAttribute('aria-selected', chosen);
    other.tabIndex = chosen ? 0 : -1;
    byId(other.getAttribute('aria-controls')).hidden = !chosen;
  }
}

for (const [at, tab] of tabs.entries()) {
  tab.addEventListener('click', () => show(tab));
  tab.addEventListener('keydown', (event) => {
    const to = {ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: tabs.length - 1}[event.key];
    if (to === undefined) return;
    event.preventDefault();
    const next = tabs.at(to % tabs.length);
    next.focus();
    show(next);
  });
}

// The beginning ----------------------------------------------------------------------------------

byId('url').value = (location.protocol === 'https:' ? 'wss://' : 'ws://') + location.host + '/';
connect();
fetch('server.json').then((answer) => answer.json()).then((server) => {
  if (server.inspect) frames.connect();
}).catch(() => {});
