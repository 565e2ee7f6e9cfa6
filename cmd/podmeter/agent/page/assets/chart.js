// SPDX-License-Identifier: Apache-2.0

// The chart of the last minutes. Its points are made while the page is looked at.

import * as format from "./format.js";

const longest = 5 * 60_000;
const shortest = 60_000;
const margin = { left: 74, right: 12, top: 10, bottom: 24 };
const kinds = ["sent", "received"];

export function svg(name, attributes, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

export class Chart {
  // box gets the drawing; text says it in words; changed is told which point is chosen,
  // or null for the last one.
  constructor(box, text, changed) {
    this.box = box;
    this.text = text;
    this.changed = changed;
    this.points = []; // {at, sent, received}; those of null are gaps
    this.chosen = null;
    this.told = 0;
    box.addEventListener("pointermove", (event) => this.chooseAt(event.clientX));
    box.addEventListener("pointerleave", () => this.choose(null));
    box.addEventListener("blur", () => this.choose(null));
    box.addEventListener("keydown", (event) => this.press(event));
    new ResizeObserver(() => this.draw()).observe(box);
  }

  // add takes the next point; a gap, with null for rates, breaks the line.
  add(point) {
    this.points.push(point);
    const newest = point.at;
    while (this.points[0].at < newest - longest - shortest / 4) {
      if (this.points.shift() === this.chosen) this.chosen = null;
    }
    this.draw();
    this.changed(this.chosen);
  }

  get real() {
    return this.points.filter((p) => p.sent !== null);
  }

  press(event) {
    const real = this.real;
    if (real.length === 0) return;
    const last = real.length - 1;
    const at = this.chosen ? real.indexOf(this.chosen) : last;
    const to = { ArrowLeft: at - 1, ArrowDown: at - 1, ArrowRight: at + 1, ArrowUp: at + 1, Home: 0, End: last, PageUp: at + 10, PageDown: at - 10 }[event.key];
    if (event.key === "Escape") this.choose(null);
    else if (to !== undefined) this.choose(real[Math.min(last, Math.max(0, to))]);
    else return;
    event.preventDefault();
  }

  chooseAt(clientX) {
    const real = this.real;
    if (real.length === 0) return;
    const at = this.scale.time(clientX - this.box.getBoundingClientRect().left);
    this.choose(real.reduce((a, b) => (Math.abs(b.at - at) < Math.abs(a.at - at) ? b : a)));
  }

  choose(point) {
    if (point === this.chosen) return;
    this.chosen = point;
    this.draw();
    this.changed(point);
  }

  draw() {
    const width = this.box.clientWidth, height = this.box.clientHeight;
    if (width === 0) return;
    const real = this.real;
    this.scale = scales(real, width, height);
    const drawing = svg("svg", { viewBox: `0 0 ${width} ${height}`, "aria-hidden": "true" }, fading(), ...grid(this.scale, width, height));
    for (const kind of kinds) {
      for (const run of runs(this.points)) drawing.append(...curve(run, kind, this.scale));
    }
    if (this.chosen) drawing.append(...cursor(this.chosen, this.scale));
    this.box.replaceChildren(drawing);
    this.describe(real);
  }

  describe(real) {
    const at = this.chosen ?? real.at(-1);
    if (!at) return;
    this.box.setAttribute("aria-valuemax", real.length - 1);
    this.box.setAttribute("aria-valuenow", real.indexOf(at));
    this.box.setAttribute("aria-valuetext", `${format.time(at.at)}: sent ${format.rate(at.sent)}, received ${format.rate(at.received)}`);
    const newest = real.at(-1).at;
    if (newest - this.told < 5_000) return; // so that it can be read
    this.told = newest;
    const most = (kind) => real.reduce((a, b) => (b[kind] > a[kind] ? b : a));
    const [sent, received] = [most("sent"), most("received")];
    this.text.textContent = `Most in ${format.duration(newest - real[0].at)}: sent ${format.rate(sent.sent)} at ${format.time(sent.at)}, ` +
      `received ${format.rate(received.received)} at ${format.time(received.at)}.`;
  }
}

// fading are the fills below the lines.
function fading() {
  return svg("defs", {}, ...kinds.map((kind) => svg("linearGradient", { id: `fade-${kind}`, x1: 0, x2: 0, y1: 0, y2: 1 },
    svg("stop", { class: `fade ${kind}`, offset: 0, "stop-opacity": 0.2 }), svg("stop", { class: `fade ${kind}`, offset: 1, "stop-opacity": 0 }))));
}

function scales(real, width, height) {
  const end = real.at(-1)?.at ?? Date.now();
  const span = Math.min(longest, Math.max(shortest, end - (real[0]?.at ?? end)));
  const most = Math.max(1000, ...real.map((p) => Math.max(p.sent, p.received)));
  const step = niceStep(most / 3.2);
  const top = Math.ceil(most / step) * step;
  const right = width - margin.right, bottom = height - margin.bottom;
  const wide = right - margin.left, high = bottom - margin.top;
  return {
    end, span, step, top, right, bottom,
    x: (at) => right - (wide * (end - at)) / span,
    y: (bits) => bottom - (high * bits) / top,
    time: (x) => end - ((right - x) * span) / wide,
  };
}

// niceStep is the least of 1, 2, 5, 10 … that is not less.
function niceStep(least) {
  const power = 10 ** Math.floor(Math.log10(least));
  return [1, 2, 5, 10].map((n) => n * power).find((n) => n >= least * 0.999);
}

function grid(scale, width, height) {
  const lines = [];
  for (let bits = 0; bits <= scale.top * 1.001; bits += scale.step) {
    const y = Math.round(scale.y(bits));
    lines.push(svg("line", { class: "grid", x1: margin.left, x2: scale.right, y1: y, y2: y }));
    lines.push(svg("text", { class: "tick", x: margin.left - 10, y: y + 4, "text-anchor": "end" }, bits === 0 ? "0" : short(bits)));
  }
  const room = (scale.span * 72) / (scale.right - margin.left);
  const every = [15_000, 30_000, 60_000].find((step) => step >= room) ?? 120_000;
  for (let ago = 0; ago <= scale.span; ago += every) {
    const words = ago === 0 ? "now" : ago % 60_000 === 0 ? `−${ago / 60_000} min` : `−${ago / 1000} s`;
    const x = scale.x(scale.end - ago);
    const anchor = ago === 0 ? "end" : x < margin.left + 24 ? "start" : "middle";
    lines.push(svg("text", { class: "tick", x: Math.max(x, margin.left), y: height - 4, "text-anchor": anchor }, words));
  }
  return lines;
}

// short is a rate without the zeroes that a step of the scale has not.
function short(bits) {
  const { number, unit } = format.rateParts(bits);
  return `${Number(number)} ${unit}`;
}

// runs are the points between gaps.
function runs(points) {
  const all = [[]];
  for (const point of points) {
    if (point.sent === null) all.push([]);
    else all.at(-1).push(point);
  }
  return all.filter((run) => run.length > 0);
}

function curve(run, kind, scale) {
  const left = scale.end - scale.span;
  const from = run.findIndex((p) => p.at >= left);
  if (from < 0) return [];
  const seen = run.slice(Math.max(0, from));
  const steps = seen.map((p) => `${scale.x(p.at).toFixed(1)} ${scale.y(p[kind]).toFixed(1)}`);
  if (seen.length === 1) {
    return [svg("circle", { class: `dot ${kind}`, cx: scale.x(seen[0].at), cy: scale.y(seen[0][kind]), r: 4 })];
  }
  const line = `M${steps.join("L")}`;
  const area = `${line}L${scale.x(seen.at(-1).at).toFixed(1)} ${scale.bottom}L${scale.x(seen[0].at).toFixed(1)} ${scale.bottom}Z`;
  return [svg("path", { fill: `url(#fade-${kind})`, d: area }), svg("path", { class: `curve ${kind}`, d: line })];
}

function cursor(point, scale) {
  const x = scale.x(point.at);
  return [
    svg("line", { class: "cursor", x1: x, x2: x, y1: margin.top, y2: scale.bottom }),
    ...kinds.map((kind) => svg("circle", { class: `dot ${kind}`, cx: x, cy: scale.y(point[kind]), r: 5 })),
  ];
}
