// SPDX-License-Identifier: Apache-2.0

// Numbers, times and names as they are shown.

const prefixes = ["", "k", "M", "G", "T", "P", "E"];

// scaled is a value with a prefix of SI: three digits, as a rate is read and not copied; of
// single bytes and bits there are no parts.
function scaled(value, unit) {
  let step = 0;
  while (value >= 999.5 && step < prefixes.length - 1) {
    value /= 1000;
    step++;
  }
  const digits = step === 0 || value >= 99.5 ? 0 : value >= 9.95 ? 1 : 2;
  return { number: value.toFixed(digits), unit: prefixes[step] + unit };
}

export const rateParts = (bits) => scaled(bits, "bit/s");

export function rate(bits) {
  if (bits === null) return "–";
  const { number, unit } = scaled(bits, "bit/s");
  return `${number} ${unit}`;
}

export function bytes(count) {
  const { number, unit } = scaled(count, "B");
  return `${number} ${unit}`;
}

const whole = new Intl.NumberFormat("en");

export const exactly = (count) => whole.format(count);

const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });

export const time = (milliseconds) => clock.format(milliseconds);

export function duration(milliseconds) {
  const seconds = Math.max(0, Math.round(milliseconds / 1000));
  if (seconds < 120) return `${seconds} s`;
  if (seconds < 7200) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 172800) return `${Math.floor(seconds / 3600)} h ${Math.floor(seconds / 60) % 60} min`;
  return `${Math.floor(seconds / 86400)} days`;
}

const regions = new Intl.DisplayNames(["en"], { type: "region", fallback: "code" });

export function country(code) {
  if (code === "other") return "Other places (series limit)";
  if (!/^[A-Z]{2}$/.test(code)) return code || "Place unknown";
  return regions.of(code);
}

// states is counts by state: "5 attached, 1 differs"; those of none are left out.
export function states(counts) {
  const present = Object.entries(counts ?? {}).filter(([, count]) => count > 0);
  if (present.length === 0) return "none";
  return present.sort((a, b) => b[1] - a[1]).map(([state, count]) => `${count} ${state.replaceAll("_", " ")}`).join(", ");
}
