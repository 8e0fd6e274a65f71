// Numbers, times and spans for people. Times are in the viewer's zone; UTC is in the title.
import { el } from "./dom.js";

const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });
const day = new Intl.DateTimeFormat(undefined, { year: "numeric", month: "short", day: "numeric" });
const whole = new Intl.NumberFormat(undefined, { maximumFractionDigits: 0 });

export const count = (number) => whole.format(number);

export function number(value) {
  if (value === null || value === undefined) return "missing";
  if (typeof value !== "number") return String(value);
  const size = Math.abs(value);
  return size !== 0 && (size >= 1e6 || size < 1e-3) ? value.toExponential(2) : String(Number(value.toPrecision(4)));
}

export const utc = (ms) => `${new Date(ms).toISOString().replace("T", " ").replace("Z", "")} UTC`;

export function timeText(ms) {
  const date = new Date(ms);
  const today = date.toDateString() === new Date().toDateString();
  return today ? clock.format(date) : `${day.format(date)}, ${clock.format(date)}`;
}

export const time = (ms) => el("time", { datetime: new Date(ms).toISOString(), title: utc(ms) }, timeText(ms));

export function span(ms) {
  const s = Math.max(0, ms) / 1000;
  if (s < 1) return `${Math.round(s * 1000)} ms`;
  if (s < 60) return `${Math.round(s)} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min${s % 60 >= 1 && s < 600 ? ` ${Math.floor(s % 60)} s` : ""}`;
  if (s < 86400) return `${Math.floor(s / 3600)} h${s % 3600 >= 60 ? ` ${Math.floor((s % 3600) / 60)} min` : ""}`;
  return `${Math.floor(s / 86400)} d${s % 86400 >= 3600 ? ` ${Math.floor((s % 86400) / 3600)} h` : ""}`;
}

// A probability as people say it: one event in so many.
export function oneIn(probability) {
  if (probability === null || probability === undefined) return "unknown";
  if (probability <= 1e-9) return "1 in a billion or rarer";
  const times = 1 / probability;
  if (times < 1.5) return "every event";
  const step = 10 ** Math.max(0, Math.floor(Math.log10(times)) - 1);
  return `1 in ${whole.format(Math.round(times / step) * step)}`;
}

export const oneInTenths = (tenths) => (tenths === null ? "" : tenths <= 1 ? "usual" : oneIn(10 ** (-tenths / 10)));

export const percent = (share) => `${Math.round(100 * share)} %`;

export const sentence = (words) => `${words[0].toUpperCase()}${words.slice(1)}.`;
