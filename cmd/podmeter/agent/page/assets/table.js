// SPDX-License-Identifier: Apache-2.0

// A table whose rows come anew with every answer: the busiest first, or sorted by a column
// that the reader chooses. The first ones are shown until all are asked for.

import * as format from "./format.js";

const few = 8;

// element makes one with a class and children; strings become text, never markup.
export function element(name, kind, ...children) {
  const made = document.createElement(name);
  if (kind) made.className = kind;
  made.append(...children);
  return made;
}

export class Table {
  // columns are the head's texts: of the name, of what is sent, received and in total.
  constructor(table, columns, none) {
    this.body = element("tbody");
    this.columns = columns;
    this.none = none;
    this.by = null;
    this.descending = false;
    this.all = false;
    this.more = element("button", "more");
    this.more.type = "button";
    this.more.hidden = true;
    this.more.setAttribute("aria-expanded", "false");
    this.more.addEventListener("click", () => this.toggle());
    this.heads = columns.map((text, column) => this.head(text, column));
    const head = element("thead", "", element("tr", "", ...this.heads));
    table.append(head, this.body);
    table.parentElement.after(this.more);
    this.mark();
  }

  head(text, column) {
    const button = element("button", "", text);
    button.type = "button";
    button.addEventListener("click", () => this.sortBy(column));
    const cell = element("th", column === 3 ? "total" : "", button);
    cell.scope = "col";
    return cell;
  }

  toggle() {
    this.all = !this.all;
    this.more.setAttribute("aria-expanded", String(this.all));
    this.draw();
  }

  // sortBy goes from a column's own order to its reverse, and then back to the busiest.
  sortBy(column) {
    const first = column > 0;
    if (column !== this.by) [this.by, this.descending] = [column, first];
    else if (this.descending === first) this.descending = !first;
    else this.by = null;
    this.mark();
    this.draw();
  }

  mark() {
    this.heads.forEach((head, column) => {
      if (column === this.by) head.setAttribute("aria-sort", this.descending ? "descending" : "ascending");
      else head.removeAttribute("aria-sort");
    });
  }

  // show takes rows of {text, name, sent, received, total}: name is a node, rates are in
  // bits a second or null. rest is the row of those that were not sent, with their count,
  // or null.
  show(rows, rest) {
    this.rows = rows;
    this.rest = rest;
    this.draw();
  }

  draw() {
    if (!this.rows) return;
    const busy = (r) => (r.sent ?? 0) + (r.received ?? 0);
    const value = this.by === null ? busy : [(r) => r.text, (r) => r.sent ?? 0, (r) => r.received ?? 0, (r) => r.total][this.by];
    const sign = this.by === null || this.descending ? -1 : 1;
    const sorted = this.rows.toSorted((a, b) => {
      const [x, y] = [value(a), value(b)];
      const order = typeof x === "string" ? x.localeCompare(y) : x - y;
      return sign * order || b.total - a.total || a.text.localeCompare(b.text);
    });
    const most = Math.max(1, ...sorted.map(busy));
    const shown = this.all ? sorted : sorted.slice(0, few);
    const lines = shown.map((r) => line(r, most));
    if (this.all && this.rest) lines.push(line(this.rest, 0));
    if (lines.length === 0) lines.push(this.empty());
    this.body.replaceChildren(...lines);
    this.more.hidden = sorted.length <= few && !this.rest;
    const all = this.rest ? `the busiest ${sorted.length} of ${sorted.length + this.rest.count}` : `all ${sorted.length}`;
    this.more.textContent = this.all ? `Show the first ${few}` : `Show ${all}`;
  }

  empty() {
    const cell = element("td", "empty", this.none);
    cell.colSpan = this.columns.length;
    cell.style.textAlign = "left";
    return element("tr", "", cell);
  }
}

function line(row, most) {
  const name = element("th", "name", row.name);
  name.scope = "row";
  if (most > 0) name.append(bar(row, most));
  const figure = (bits) => element("td", bits ? "" : "quiet", format.rate(bits));
  return element("tr", most > 0 ? "" : "rest", name, figure(row.sent), figure(row.received), element("td", "total", format.bytes(row.total)));
}

// bar is the row's share of the busiest one's rate, in its two parts.
function bar(row, most) {
  const both = element("span", "bar");
  both.setAttribute("aria-hidden", "true");
  for (const [kind, bits] of [["sent", row.sent], ["received", row.received]]) {
    const part = element("i", kind);
    part.style.width = `${(100 * (bits ?? 0)) / most}%`;
    both.append(part);
  }
  return both;
}
