// SPDX-License-Identifier: Apache-2.0

// Asks the agent while somebody looks, and shows what it says. Names are others' and
// become text alone.

import { Chart } from "./chart.js";
import * as format from "./format.js";
import { WorldMap } from "./map.js";
import { element, Table } from "./table.js";

const every = 2_000;
const patience = 8_000;

const by = (id) => document.getElementById(id);
const set = (id, text) => { by(id).textContent = text; };

const tables = {
  pods: new Table(by("pods-table"), ["Pod", "Sent", "Received", "Total"], "No pod has sent or received anything yet."),
  edges: new Table(by("edges-table"), ["Between", "Sent", "Received", "Total"], "Nobody has talked to anybody yet."),
  places: new Table(by("places-table"), ["Place", "Sent", "Received", "Total"], "Nothing has gone out of the cluster yet."),
};
const world = new WorldMap(by("map"));
const chart = new Chart(by("chart"), by("chart-text"), showRates);

let last = null; // the answer before
let now = null; // the rates of all pods in it; null for none yet
let paused = false;
let silentSince = null;
let timer = 0;

// What is shown of an answer.

function show(state) {
  set("node", state.node || "this node");
  set("version", state.version);
  document.title = `${state.node || "podmeter"} – podmeter`;
  const rates = ratesOf(state);
  now = rates({ grown: state.grown, total: state.total }, {});
  extend(state);
  showRates(chart.chosen);
  tables.pods.show(state.pods.rows.map((r) => rates(r, nameOfPod(r))), restOf(state.pods, rates, "pods"));
  tables.edges.show(state.edges.rows.map((r) => rates(r, nameOfEdge(r))), restOf(state.edges, rates, "pairs"));
  by("map-none").hidden = state.located;
  by("map-figure").hidden = !state.located;
  by("map-and-places").classList.toggle("map-columns", state.located);
  tables.places.show(state.places.rows.map((r) => rates(r, nameOfPlace(r))), restOf(state.places, rates, "places"));
  if (state.located) world.show(spotsOf(state.places.rows, rates));
  showAttributions(state);
  showBooks(state);
  showAgent(state);
  last = state;
}

// extend adds a point to the chart: what was moved between two answers, by the time
// between their counters. After a pause, or with another agent, there is no such time.
function extend(state) {
  if (state.asOf === 0 || state.asOf === last?.asOf) return;
  const seconds = (state.asOf - last?.asOf) / 1000;
  const goesOn = last && state.watch === last.watch && state.started === last.started && seconds > 0;
  const bits = (direction) => (8 * (state.moved[direction] - last.moved[direction])) / seconds;
  chart.add(goesOn ? { at: state.asOf, sent: bits(0), received: bits(1) } : { at: state.asOf, sent: null, received: null });
}

// showRates shows those of a point of the chart, or of now: these are of the same counters and
// the same time as the rates of rows, so that all pods' are their sum.
function showRates(point) {
  const at = point ?? now;
  set("chart-when", point ? format.time(point.at) : "now");
  for (const kind of ["sent", "received"]) {
    if (at === null || at[kind] === null) continue;
    const { number, unit } = format.rateParts(at[kind]);
    by(`now-${kind}`).replaceChildren(number, " ", element("small", "", unit));
  }
}

// ratesOf returns what makes a row of a table.
function ratesOf(state) {
  const rate = (bytes) => (state.grownSeconds > 0 ? (8 * bytes) / state.grownSeconds : null);
  return (row, { text, name }) => ({
    text, name, sent: rate(row.grown[0]), received: rate(row.grown[1]), total: row.total[0] + row.total[1],
  });
}

function restOf(section, rates, things) {
  if (section.others === 0) return null;
  const text = `${section.others} other ${things}`;
  return { ...rates(section.rest, { text, name: element("span", "", text) }), count: section.others };
}

// Names: of each its text, to sort by, and the nodes that are shown.

function qualified(namespace, name) {
  return namespace ? [element("span", "of", `${namespace}/`), name] : [name];
}

function nameOfPod(row) {
  return { text: `${row.namespace}/${row.name}`, name: element("span", "", ...qualified(row.namespace, row.name)) };
}

const unnamed = {
  external: "the internet", unattributed: "peer unknown", other: "other peers (series limit)", node: "a node", cluster: "an unknown pod or service",
  private: "a private address", multicast: "multicast", link_local: "link-local", link: "no IP header",
};

function partyParts(party) {
  const prefix = { service: "service ", node: "node ", cidr: "range " }[party.kind] ?? "";
  if (!party.name) return [unnamed[party.kind] ?? party.kind];
  if (!party.namespace && party.name === "other") return [`${party.kind}: others (series limit)`];
  return prefix ? [element("span", "of", prefix), ...qualified(party.namespace, party.name)] : qualified(party.namespace, party.name);
}

function nameOfEdge(row) {
  const name = element("span", "", ...partyParts(row.local), element("span", "between", " ⇄ "), ...partyParts(row.peer));
  const text = name.textContent;
  if (row.locality !== "unknown" && row.locality !== "external") name.append(element("span", "note aside", row.locality.replaceAll("_", " ")));
  return { text, name };
}

function titleOf(row) {
  return row.city ? `${row.city}, ${format.country(row.country)}` : format.country(row.country);
}

function nameOfPlace(row) {
  const text = titleOf(row);
  const name = element("span", "", text);
  const network = row.organization || (row.asn && `AS${row.asn}`);
  if (network) name.append(element("span", "note below", network));
  return { text, name };
}

// showAttributions names the makers of the databases, as their licences ask. It is made anew
// only when they change, lest a link goes while somebody is on it.
function showAttributions({ attributions }) {
  const key = JSON.stringify(attributions);
  const box = by("attributions");
  if (box.dataset.of === key) return;
  box.dataset.of = key;
  box.replaceChildren(...attributions.flatMap(({ text, url }) => {
    const link = element("a", "", text);
    link.href = url;
    return [" · ", link];
  }));
}

// spotsOf adds up the rows of one place, which differ by network.
function spotsOf(rows, rates) {
  const spots = new Map();
  for (const row of rows) {
    if (!row.at) continue;
    const key = row.at.join();
    const title = titleOf(row);
    const spot = spots.get(key) ?? { key, title, short: row.city || title, at: row.at, bits: 0 };
    const { sent, received } = rates(row, {});
    spot.bits += (sent ?? 0) + (received ?? 0);
    spots.set(key, spot);
  }
  return [...spots.values()];
}

// The books and the agent.

function showBooks(state) {
  const { books, conservationErrorBytes: error } = state;
  const wrong = error + books.difference;
  set("sum-flows", format.exactly(books.flows));
  set("sum-retired", format.exactly(books.flowsRetired));
  set("sum-pods", format.exactly(books.pods));
  set("sum-places", format.exactly(books.places));
  set("sum-places-retired", format.exactly(books.placesRetired));
  set("sum-external", format.exactly(books.external));
  const { kind, sign, short, long } = verdictOf(state, wrong, error);
  by("verdict").className = `pill ${kind}`;
  set("verdict-sign", sign);
  set("verdict-text", short);
  set("books-verdict", long);
  by("books-verdict").className = kind;
  showWaiting(state);
}

// verdictOf says whether every byte is accounted for. One that waits for its pod is on no series
// yet, one that was lost never will be.
function verdictOf({ books, unboundBytes: waits, lostBytes: lost }, wrong, error) {
  if (wrong > 0) {
    return { kind: "bad", sign: "!", short: `${format.exactly(wrong)} bytes do not add up`, long: `✗ No: ${format.exactly(error)} bytes of conservation error, `
      + `${format.exactly(books.difference)} bytes between the sums. That is a bug, please report it.` };
  }
  const sums = "For each pod and direction the sums are equal, and the conservation error is 0";
  if (waits > 0) {
    return { kind: "waits", sign: "…", short: `${format.bytes(waits)} wait for their pod`,
      long: `… Not all: ${format.exactly(waits)} bytes are on no series, as the pod of their interface is not known. ${sums}.` };
  }
  if (lost > 0) {
    return { kind: "waits", sign: "…", short: `${format.bytes(lost)} lost`,
      long: `… Not all: ${format.exactly(lost)} bytes are on no series, as their interface has gone and its pod was never known. ${sums}.` };
  }
  if (books.pods === 0) return { kind: "", sign: "·", short: "Nothing counted yet", long: "Nothing has been counted yet." };
  return { kind: "good", sign: "✓", short: "Every byte accounted for", long: `✓ Yes: ${sums.toLowerCase()}.` };
}

// showWaiting lists the interfaces whose bytes wait for a pod.
function showWaiting({ waiting, now: at }) {
  by("waiting").hidden = waiting.length === 0;
  by("waiting-rows").replaceChildren(...waiting.map((row) => {
    const name = element("th", "", row.gone ? `${row.interface} (gone)` : row.interface);
    name.scope = "row";
    return element("tr", "", name, element("td", "", row.needs.join(", ") || "not known"),
      element("td", "", `${format.duration(at - row.since)} ago`), element("td", "", format.exactly(row.bytes)));
  }));
}

function showAgent(state) {
  set("last-drain", state.lastDrain ? `${format.duration(state.now - state.lastDrain)} ago` : "none yet");
  set("uptime", format.duration(state.now - state.started));
  set("pod-states", format.states(state.podStates));
  set("interfaces", format.states(state.interfaces));
  set("conservation", `${format.exactly(state.conservationErrorBytes)} bytes`);
  set("unattributed", `${format.exactly(state.books.unattributed)} bytes`);
  set("unbound", `${format.exactly(state.unboundBytes)} bytes`);
  set("lost", `${format.exactly(state.lostBytes)} bytes`);
}

// Asking.

async function ask() {
  const response = await fetch("page/state", { cache: "no-store", signal: AbortSignal.timeout(patience) });
  if (!response.ok) throw new Error(`it answers ${response.status} ${response.statusText}`);
  return response.json();
}

async function tick() {
  timer = 0;
  try {
    const state = await ask();
    silentSince = null;
    show(state);
  } catch (error) {
    silentSince ??= Date.now();
    console.debug("podmeter:", error);
  }
  notify();
  schedule();
}

// schedule asks again, unless nobody looks.
function schedule() {
  clearTimeout(timer);
  timer = paused || document.hidden ? 0 : setTimeout(tick, every);
}

function notify() {
  const notice = by("notice");
  const text = paused ? "Paused. Press P to go on."
    : silentSince ? `The agent has not answered since ${format.time(silentSince)}. The page tries again every ${every / 1000} seconds and shows what it knew.` : "";
  if (notice.textContent !== text) notice.textContent = text;
  notice.classList.toggle("calm", paused);
  notice.hidden = text === "";
}

function setPaused(to) {
  paused = to;
  by("pause").setAttribute("aria-pressed", String(paused));
  notify();
  if (paused) clearTimeout(timer);
  else tick();
}

// Controls.

const themes = ["system", "light", "dark"];

function setTheme(theme) {
  if (theme === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
  set("theme", `Theme: ${theme}`);
}

function storedTheme() {
  try {
    return themes.find((t) => t === localStorage.getItem("podmeter-theme")) ?? "system";
  } catch {
    return "system"; // storage may be forbidden
  }
}

let theme = storedTheme();
setTheme(theme);
by("theme").addEventListener("click", () => {
  theme = themes[(themes.indexOf(theme) + 1) % themes.length];
  setTheme(theme);
  try {
    localStorage.setItem("podmeter-theme", theme);
  } catch { /* then it is forgotten */ }
});
by("pause").addEventListener("click", () => setPaused(!paused));
document.addEventListener("keydown", (event) => {
  if (event.key.toLowerCase() !== "p" || event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
  setPaused(!paused);
});
document.addEventListener("visibilitychange", () => {
  if (!document.hidden && !paused && timer === 0) tick();
  else schedule();
});

tick();
