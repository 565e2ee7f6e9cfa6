// SPDX-License-Identifier: Apache-2.0

// The map of external peers: a circle a place, whose area is its rate.

import * as format from "./format.js";
import { svg } from "./chart.js";
import { height, north, outline, width } from "./land.js";

const labels = 6;
const least = 3.5, most = 20; // radii in pixels

export class WorldMap {
  constructor(box) {
    this.box = box;
    this.spots = new Map();
    this.circles = svg("g", {});
    this.names = svg("g", {});
    box.append(svg("svg", { viewBox: `0 0 ${width} ${height}`, "aria-hidden": "true" },
      svg("path", { class: "land", d: outline }), this.circles, this.names));
    new ResizeObserver(() => this.draw()).observe(box);
  }

  // show takes places of {title, at: [latitude, longitude], bits}.
  show(places) {
    this.places = places.toSorted((a, b) => b.bits - a.bits || a.title.localeCompare(b.title));
    this.draw();
  }

  draw() {
    if (!this.places || this.box.clientWidth === 0) return;
    const pixel = width / this.box.clientWidth; // in units of the outline
    const busiest = Math.max(1, ...this.places.map((p) => p.bits));
    const gone = new Set(this.spots.keys());
    for (const place of this.places) {
      gone.delete(place.key);
      this.spot(place, pixel * (least + (most - least) * Math.sqrt(place.bits / busiest)));
    }
    for (const key of gone) {
      this.spots.get(key).remove();
      this.spots.delete(key);
    }
    this.names.replaceChildren(...this.write(pixel));
  }

  spot(place, radius) {
    let circle = this.spots.get(place.key);
    if (!circle) {
      circle = svg("circle", { cx: x(place), cy: y(place) }, svg("title", {}));
      this.spots.set(place.key, circle);
      this.circles.append(circle);
    }
    circle.setAttribute("class", place.bits > 0 ? "spot" : "spot idle");
    circle.setAttribute("r", radius.toFixed(1));
    circle.firstChild.textContent = `${place.title}: ${format.rate(place.bits)}`;
    place.radius = radius;
  }

  // write names the busiest places, unless a name would lie upon another.
  write(pixel) {
    const size = 12 * pixel, taken = [];
    return this.places.slice(0, labels).flatMap((place) => {
      const long = place.short.length * size * 0.6;
      const leftwards = x(place) + place.radius + long > width;
      const start = leftwards ? x(place) - place.radius - 4 * pixel - long : x(place) + place.radius + 4 * pixel;
      const box = [start, start + long, y(place) - size / 2, y(place) + size / 2];
      if (taken.some((t) => box[0] < t[1] && t[0] < box[1] && box[2] < t[3] && t[2] < box[3])) return [];
      taken.push(box);
      return [svg("text", {
        class: "label", x: leftwards ? start + long : start, y: y(place) + size * 0.35,
        "text-anchor": leftwards ? "end" : "start", "font-size": size, "stroke-width": 3 * pixel,
      }, place.short)];
    });
  }
}

const x = (place) => Math.round((place.at[1] + 180) * 10);
const y = (place) => Math.round(Math.min(height, Math.max(0, (north - place.at[0]) * 10)));
