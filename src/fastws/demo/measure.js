// Measures round trips and throughput against a server that echoes. This module knows its own
// connection, figures and charts.

import {duration, number, size} from './words.js';

const PER_OCTAVE = 32; // bins of the histogram, from 1 µs on
const BINS = 26 * PER_OCTAVE;
const BARS = 4; // per octave, in the chart
const SAMPLE = 250; // ms
const MAX_SAMPLES = 240;
const MAX_IN_FLIGHT = 16 << 20; // bytes

const SVG = 'http://www.w3.org/2000/svg';

function shape(name, attributes, text) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

class Histogram {
  constructor() {
    this.counts = new Uint32Array(BINS);
    this.count = 0;
    this.least = Infinity;
    this.most = 0;
  }

  add(milliseconds) {
    const bin = Math.log2(Math.max(1, milliseconds * 1000)) * PER_OCTAVE;
    this.counts[Math.min(BINS - 1, Math.floor(bin))] += 1;
    this.count += 1;
    if (milliseconds < this.least) this.least = milliseconds;
    if (milliseconds > this.most) this.most = milliseconds;
  }

  // In ms, within 2 %.
  quantile(part) {
    let left = part * this.count;
    let bin = 0;
    while (bin < BINS - 1 && (left -= this.counts[bin]) > 0) bin += 1;
    const middle = 2 ** ((bin + 0.5) / PER_OCTAVE) / 1000;
    return Math.min(this.most, Math.max(this.least, middle));
  }
}

export class Measure {
  // `target()` returns the URL and the subprotocols.
  constructor(byId, target, copy) {
    this.byId = byId;
    this.target = target;
    this.run = null;
    byId('load').addEventListener('submit', (event) => {
      event.preventDefault();
      if (this.run) this.stop('stopped');
      else this.start();
    });
    for (const id of ['size', 'flight']) {
      byId(id).addEventListener('input', () => this.adjust());
    }
    byId('copy-result').addEventListener('click', (event) => copy(this.text, event.target));
    const finest = crossOriginIsolated ? '' : 'This browser rounds times to 0.1 ms or more here.';
    byId('clock').textContent = finest;
    new ResizeObserver(() => this.draw()).observe(byId('trips'));
    this.adjust();
    this.show(null);
  }

  get size() {
    return 2 ** Number(this.byId('size').value);
  }

  get inFlight() {
    const wanted = 2 ** Number(this.byId('flight').value);
    return Math.max(1, Math.min(wanted, Math.floor(MAX_IN_FLIGHT / this.size)));
  }

  adjust() {
    const {byId, run, size: octets, inFlight} = this;
    byId('size-shown').textContent = size(octets);
    byId('flight-shown').textContent = number(inFlight);
    byId('size').setAttribute('aria-valuetext', size(octets));
    byId('flight').setAttribute('aria-valuetext', inFlight);
    if (!run) return;
    run.makePayload();
    if (run.socket.readyState === WebSocket.OPEN) run.fill();
  }

  start() {
    const {byId} = this;
    const {url, protocols} = this.target();
    const isText = byId('load-type').value === 'text';
    const trips = new Histogram();
    const sent = []; // [when, size] of messages in flight, from `head` on
    let head = 0;
    let socket;
    try {
      socket = new WebSocket(url, protocols);
    } catch (error) {
      byId('run-state').textContent = error.message;
      return;
    }
    socket.binaryType = 'arraybuffer';
    const run = {socket, url, trips, samples: [], octets: 0, began: null, ended: null,
      payload: null, isText, seconds: Number(byId('seconds').value), settings: []};
    run.makePayload = () => {
      const octets = this.size;
      run.payload = isText ? 'x'.repeat(octets) : new Uint8Array(octets).fill(120);
      run.payloadSize = octets;
      run.inFlight = this.inFlight;
      const setting = (isText ? 'text, ' : 'binary, ') + size(octets) + ', ' + run.inFlight
        + ' in flight';
      if (!run.trips.count) run.settings.pop();
      if (run.settings.at(-1) !== setting) run.settings.push(setting);
    };
    run.fill = () => {
      while (sent.length - head < run.inFlight) {
        sent.push([performance.now(), run.payloadSize]);
        socket.send(run.payload);
      }
    };
    socket.onopen = () => {
      run.began = run.sampled = performance.now();
      run.before = 0;
      run.timer = setTimeout(() => this.stop('done'), run.seconds * 1000);
      byId('run-state').textContent = 'running';
      run.fill();
      this.tick();
    };
    socket.onmessage = (event) => {
      const now = performance.now();
      const oldest = sent[head];
      const octets = isText ? event.data.length : event.data.byteLength;
      if (oldest === undefined || oldest[1] !== octets) {
        this.stop('this server does not echo: a message of another size came back');
        return;
      }
      head += 1;
      if (head > 1024) {
        sent.splice(0, head);
        head = 0;
      }
      trips.add(now - oldest[0]);
      run.octets += octets;
      if (run.ended === null) run.fill();
    };
    socket.onclose = (event) => {
      if (this.run === run) this.stop('the connection ended with code ' + event.code);
    };
    this.run = this.last = run;
    run.makePayload();
    byId('run').textContent = 'Stop';
    byId('load-type').disabled = true;
    byId('copy-result').disabled = true;
    byId('run-state').textContent = 'connecting';
    this.show(run);
  }

  // Sample and draw, by the frames of the screen.
  tick() {
    const {run} = this;
    if (!run) return;
    const now = performance.now();
    if (now - run.sampled >= SAMPLE) {
      const {count} = run.trips;
      run.samples.push((count - run.before) / (now - run.sampled) * 1000);
      if (run.samples.length > MAX_SAMPLES) run.samples.shift();
      run.before = count;
      run.sampled = now;
      this.show(run);
    }
    requestAnimationFrame(() => this.tick());
  }

  stop(why) {
    const {byId, run} = this;
    this.run = null;
    clearTimeout(run.timer);
    run.ended = performance.now();
    if (run.began === null) run.began = run.ended;
    run.socket.onmessage = null;
    run.socket.close();
    byId('run').textContent = 'Start';
    byId('load-type').disabled = false;
    byId('run-state').textContent = why;
    this.show(run);
    byId('copy-result').disabled = !run.trips.count;
  }

  show(run) {
    const figures = this.figures(run);
    const list = this.byId('results');
    list.replaceChildren(...figures.map(([name, value]) => {
      const group = document.createElement('div');
      const term = document.createElement('dt');
      const description = document.createElement('dd');
      term.textContent = name;
      description.textContent = value;
      group.append(term, description);
      return group;
    }));
    this.text = !run ? '' : ['fastws echo page: ' + run.url, ...run.settings,
      ...figures.map((figure) => figure.join(': ')), navigator.userAgent, ''].join('\n');
    this.draw();
  }

  figures(run) {
    const names = ['Messages', 'Per second', 'Each way', 'Least', 'Median', '90 %', '99 %',
      '99.9 %', 'Most'];
    if (!run || !run.trips.count) return names.map((name) => [name, '–']);
    const {trips} = run;
    const seconds = ((run.ended ?? performance.now()) - run.began) / 1000;
    const values = [number(trips.count), number(Math.round(trips.count / seconds)),
      (run.octets / seconds / 1e6).toFixed(2) + ' MB/s', duration(trips.least),
      ...[0.5, 0.9, 0.99, 0.999].map((part) => duration(trips.quantile(part))),
      duration(trips.most)];
    return names.map((name, i) => [name, values[i]]);
  }

  // Charts ------------------------------------------------------------------------------------

  draw() {
    this.drawTrips(this.byId('trips'));
    this.drawRate(this.byId('rate'));
  }

  frame(svg) {
    const width = svg.clientWidth;
    const height = svg.clientHeight;
    svg.setAttribute('viewBox', '0 0 ' + width + ' ' + height);
    return {left: 52, right: width - 8, top: 12, bottom: height - 24, parts: []};
  }

  drawScale(area, most, write) {
    // Round numbers, about four of them.
    const power = 10 ** Math.floor(Math.log10(most));
    const step = [0.2, 0.5, 1, 2].map((part) => part * power).find((part) => most / part <= 5)
      ?? 2 * power;
    const y = (value) => area.bottom - value / most * (area.bottom - area.top);
    for (let value = 0; value <= most; value += step) {
      area.parts.push(shape('line', {class: 'grid', x1: area.left, x2: area.right,
        y1: y(value), y2: y(value)}));
      area.parts.push(shape('text', {x: area.left - 6, y: y(value) + 4, 'text-anchor': 'end'},
        write(value)));
    }
    return y;
  }

  drawTrips(svg) {
    const area = this.frame(svg);
    const trips = this.last?.trips;
    if (!svg.clientWidth) return;
    if (trips?.count) {
      const width = PER_OCTAVE / BARS;
      const bars = [];
      for (let i = 0; i < BINS / width; i++) {
        bars.push(trips.counts.subarray(i * width, (i + 1) * width).reduce((a, b) => a + b));
      }
      // Whole octaves, at least four of them.
      let first = Math.floor(bars.findIndex(Boolean) / BARS);
      let end = Math.ceil((bars.findLastIndex(Boolean) + 1) / BARS);
      while (end - first < 4) first > 0 && (end - first) % 2 ? (first -= 1) : (end += 1);
      const y = this.drawScale(area, Math.max(...bars), short);
      const step = (area.right - area.left) / (end - first) / BARS;
      for (let i = first * BARS; i < end * BARS; i++) {
        const x = area.left + (i - first * BARS) * step;
        if (bars[i]) {
          const top = Math.min(y(bars[i]), area.bottom - 1);
          area.parts.push(shape('rect', {x: x + 0.5, width: Math.max(1, step - 1), y: top,
            height: area.bottom - top}));
        }
      }
      // 1, 2, 5, 10 … µs, as far as there is room.
      let free = area.left;
      for (let i = 0; i < 24; i++) {
        const micros = [1, 2, 5][i % 3] * 10 ** Math.floor(i / 3);
        const x = area.left + (Math.log2(micros) - first) * BARS * step;
        if (x < free || x > area.right - 16) continue;
        area.parts.push(
          shape('line', {class: 'grid', x1: x, x2: x, y1: area.bottom, y2: area.bottom + 5}),
          shape('text', {x, y: area.bottom + 19, 'text-anchor': 'middle'}, label(micros)));
        free = x + 52;
      }
      svg.setAttribute('aria-label', 'Histogram of round trips: median '
        + duration(trips.quantile(0.5)) + ', 99 % within ' + duration(trips.quantile(0.99)));
    } else {
      this.drawEmpty(area);
    }
    svg.replaceChildren(...area.parts);
  }

  drawRate(svg) {
    const area = this.frame(svg);
    const samples = this.last?.samples ?? [];
    if (!svg.clientWidth) return;
    if (samples.length > 1) {
      const most = Math.max(...samples, 1) * 1.05;
      const y = this.drawScale(area, most, short);
      const across = Math.max(samples.length - 1, 20);
      const x = (i) => area.left + i / across * (area.right - area.left);
      const points = samples.map((value, i) => x(i).toFixed(1) + ' ' + y(value).toFixed(1));
      area.parts.push(
        shape('path', {class: 'area', d: 'M' + points.join('L') + 'L' + x(samples.length - 1)
          + ' ' + area.bottom + 'L' + area.left + ' ' + area.bottom + 'Z'}),
        shape('path', {class: 'line', d: 'M' + points.join('L')}),
        shape('text', {x: area.left, y: area.bottom + 18}, '0 s'),
        shape('text', {x: area.right, y: area.bottom + 18, 'text-anchor': 'end'},
          (across * SAMPLE / 1000).toFixed(0) + ' s'));
      svg.setAttribute('aria-label', 'Throughput over time: at last '
        + number(Math.round(samples.at(-1))) + ' messages per second');
    } else {
      this.drawEmpty(area);
    }
    svg.replaceChildren(...area.parts);
  }

  drawEmpty(area) {
    area.parts.push(
      shape('line',
        {class: 'grid', x1: area.left, x2: area.right, y1: area.bottom, y2: area.bottom}),
      shape('text', {x: (area.left + area.right) / 2, y: (area.top + area.bottom) / 2,
        'text-anchor': 'middle'}, 'nothing measured yet'));
  }
}

const short = (value) => value < 10 && value % 1 ? value.toFixed(1)
  : value < 1000 ? String(Math.round(value))
    : value < 1e6 ? +(value / 1000).toFixed(1) + ' k' : +(value / 1e6).toFixed(1) + ' M';

const label = (micros) => micros < 1000 ? micros + ' µs'
  : micros < 1e6 ? micros / 1000 + ' ms' : micros / 1e6 + ' s';
