// All keys, the worst first, and the alerts.
import { arrange, el, setText } from "./dom.js";
import { get } from "./api.js";
import { count, number, oneIn, oneInTenths, percent, sentence, span, time } from "./format.js";
import { aboutAlert, say } from "./hands.js";
import { drawStrip } from "./strip.js";

export const LEVELS = {
  5: ["▲", "Alert", "alert"],
  4: ["△", "Unusual", "unusual"],
  3: ["◇", "Raised", "raised"],
  2: ["○", "Calm", "calm"],
  1: ["◔", "Warming up", "warms"],
  0: ["–", "Silent", "silent"],
};
const SPANS = [60, 180, 360]; // buckets
const ENDS = { calm: "over", followed: "over, another followed" };
const TELLING = { kept: "", more: ", more than promised", "too few": ", too few to tell" };

export const keyLink = (key, partition, more = {}) =>
  `#/key/${encodeURIComponent(key)}?${new URLSearchParams({ p: partition, ...more })}`;

export function levelText(row, head) {
  const parts = [];
  if (row.level === 0) parts.push(`nothing for ${span(head.now_ms - row.silent_since_ms)}`);
  else if (row.level === 1) parts.push(row.warm_in ? `up to ${count(row.warm_in)} events to go` : "soon done");
  else if (row.level === 2) parts.push("usual");
  else parts.push(oneInTenths(row.tenths));
  if (row.muted_until_ms) parts.push("muted");
  return parts.join(" · ");
}

export class FleetView {
  constructor(live, page) {
    this.live = live;
    this.page = page;
    this.rows = new Map();
    this.cards = new Map();
    this.buckets = SPANS[0];
    this.find = "";
    this.found = null;
    this.held = null;
    this.figures = {};
    this.build();
    this.resized = new ResizeObserver(() => this.draw());
    this.resized.observe(this.list);
    this.timer = setInterval(() => this.find && this.search(), 3000);
  }

  build() {
    const figure = (name, label) => {
      const value = el("dd", {}), more = el("dd", { class: "more" });
      this.figures[name] = { value, more };
      return el("div", { class: "figure", id: `figure-${name}` }, el("dt", {}, label), value, more);
    };
    this.spans = el("div", { class: "segments", role: "group", "aria-label": "Time shown" });
    this.input = el("input", { type: "search", placeholder: "Find a key", "aria-label": "Find a key", oninput: () => this.search() });
    this.list = el("ul", { class: "rows", "aria-label": "Keys, the most unusual first" });
    this.axis = el("div", { class: "axis", "aria-hidden": "true" }, el("span", {}), el("span", {}));
    this.more = el("p", { class: "muted small" });
    this.alerts = el("ul", { class: "alerts" });
    this.moreAlerts = el("p", { class: "muted small" });
    this.noAlerts = el("p", { class: "muted" }, "None so far. An alert appears here within a second or two of its event.");
    this.empty = el("div", { class: "empty", hidden: true });
    this.body = el(
      "div",
      { class: "fleet" },
      el(
        "section",
        { class: "keys", "aria-labelledby": "keys-title" },
        el("div", { class: "titled" }, el("h2", { id: "keys-title" }, "Keys"), this.input, this.spans),
        this.list,
        this.axis,
        this.more,
        legend(),
      ),
      el("section", { class: "side", "aria-labelledby": "alerts-title" }, el("h2", { id: "alerts-title" }, "Alerts"), this.noAlerts, this.alerts, this.moreAlerts),
    );
    this.summary = el(
      "dl",
      { class: "figures" },
      figure("open", "Open alerts"),
      figure("keys", "Keys"),
      figure("rate", "Events per second"),
      figure("lag", "Waiting for a score"),
      figure("flagged", "Flagged"),
      figure("alarms", "Alerts per key"),
    );
    this.root = el("div", {}, el("h1", { class: "sr" }, "All keys"), this.summary, this.empty, this.body);
  }

  leave() {
    this.resized.disconnect();
    clearInterval(this.timer);
  }

  update() {
    const { state } = this.live;
    if (!state) return;
    const { head } = state;
    this.flaggedAt = Math.round(-10 * Math.log10(head.promised));
    this.showFigures(head);
    this.showEmpty(head);
    this.showSpans(head);
    this.showRows(state);
    this.showAlerts(state);
  }

  showFigures(head) {
    const set = (name, value, more, kind = "") => {
      setText(this.figures[name].value, value);
      setText(this.figures[name].more, more);
      this.figures[name].value.parentElement.dataset.kind = kind;
    };
    set("open", count(head.open), head.open ? "look at them first" : "all calm", head.open ? "alert" : "");
    const apart = [head.warming && `${count(head.warming)} warming up`, head.silent && `${count(head.silent)} silent`, head.keys_dropped && `${count(head.keys_dropped)} long unheard of, left out`];
    set("keys", count(head.keys), apart.filter(Boolean).join(", ") || "all heard of");
    set("rate", head.rate >= 10 ? count(head.rate) : String(head.rate), head.quiet_ms ? `no score for ${span(head.quiet_ms)}` : "over ten seconds", head.stands ? "raised" : "");
    const behind = head.lag !== null && head.lag > Math.max(100, 5 * head.rate);
    set("lag", head.lag === null ? "–" : count(head.lag), scorerText(head, behind), behind || (head.stands && head.lag) ? "raised" : "");
    const realised = head.scored ? head.flagged / head.scored : null;
    if (!head.all_told) set("flagged", count(head.flagged), `promised ${oneIn(head.promised)}; of how many is not told`);
    else set("flagged", head.flagged ? oneIn(realised) : head.scored ? "none" : "–", `promised ${oneIn(head.promised)}; ${count(head.flagged)} of ${count(head.scored)}${TELLING[head.flagged_judged]}`);
    this.showAlarms(head.alarms, set);
  }

  // How many alerts opened beside how many were promised. One alert in the first minute is not 1,440 a day.
  showAlarms({ unit, promised, realised, opened, due, judged }, set) {
    const early = realised === null; // few were due
    const a = unit === "hour" ? "an" : "a";
    const value = early ? `${count(opened)} so far` : `${number(realised)} ${a} ${unit}`;
    const more = early ? `${number(due)} due by now` : `${count(opened)} opened`;
    set("alarms", value, `promised at most ${number(promised)} ${a} ${unit}; ${more}${TELLING[judged]}`, judged === "more" ? "raised" : "");
  }

  showEmpty(head) {
    const nothing = head.keys === 0;
    this.empty.hidden = !nothing;
    this.body.hidden = this.summary.hidden = nothing;
    if (!nothing) return;
    const text = head.scores_there
      ? ["No scores yet", "The first one appears here when it comes. Until then, see that a scorer runs."]
      : ["Nothing is scored yet", `There is no topic ${head.topic}.scores. Start the scorer: streamlstm score --topic ${head.topic} …`];
    if (this.empty.dataset.said !== text[0]) {
      this.empty.dataset.said = text[0];
      this.empty.replaceChildren(el("h2", {}, text[0]), el("p", {}, text[1]));
    }
  }

  showSpans(head) {
    if (this.spans.children.length) return;
    for (const buckets of SPANS)
      this.spans.append(
        el("button", { type: "button", "aria-pressed": buckets === this.buckets, onclick: (event) => this.choose(buckets, event.target) }, span(buckets * head.width_ms)),
      );
  }

  choose(buckets, button) {
    this.buckets = buckets;
    for (const one of this.spans.children) one.setAttribute("aria-pressed", one === button);
    this.update();
  }

  async search() {
    this.find = this.input.value.trim();
    this.found = null;
    if (this.find) {
      const wanted = this.find;
      try {
        const found = await get("/api/keys", { find: wanted });
        if (wanted === this.find) this.found = found;
      } catch (error) {
        if (error.status === 401) this.page.signIn();
      }
    }
    this.update();
  }

  showRows(state) {
    const { head } = state;
    let rows = state.order.map((number) => state.rows[number]).filter(Boolean);
    if (this.find) rows = this.found || rows.filter((row) => row.key.toLowerCase().includes(this.find.toLowerCase()));
    if (!this.list.matches(":hover, :focus-within") || this.find) this.held = null;
    else if (this.held) rows = steady(rows, this.held); // nothing jumps away under a pointer
    this.held = rows.map((row) => `${row.partition} ${row.key}`);
    const elements = rows.map((row) => this.row(row, head));
    arrange(this.list, elements.map(({ item }) => item));
    for (const [name, { item }] of this.rows) if (!item.isConnected) this.rows.delete(name);
    setText(this.axis.firstChild, `${span(this.buckets * head.width_ms)} ago`);
    setText(this.axis.lastChild, "now");
    const hidden = head.keys - rows.length;
    setText(this.more, this.find ? `${count(rows.length)} found` : hidden > 0 ? `${count(hidden)} more keys, calmer than these: find them by name` : "");
    this.draw();
  }

  row(row, head) {
    const name = `${row.partition} ${row.key}`;
    let known = this.rows.get(name);
    if (!known) {
      const symbol = el("span", { class: "symbol", "aria-hidden": "true" }), label = el("span", { class: "sr" });
      const state = el("span", { class: "state" }), canvas = el("canvas", { "aria-hidden": "true" });
      const link = el("a", { href: keyLink(row.key, row.partition), class: "row" }, symbol, el("span", { class: "key", title: row.key }, row.key), label, canvas, state);
      known = { item: el("li", {}, link), link, symbol, label, state, canvas };
      this.rows.set(name, known);
    }
    const [symbol, label, kind] = LEVELS[row.level];
    setText(known.symbol, symbol);
    setText(known.label, `, ${label}, `);
    setText(known.state, levelText(row, head));
    known.link.dataset.level = kind;
    known.strip = row.strip;
    return known;
  }

  draw() {
    for (const { canvas, strip } of this.rows.values()) if (strip) drawStrip(canvas, strip, this.buckets, this.flaggedAt);
  }

  showAlerts(state) {
    const episodes = Object.values(state.episodes).sort((a, b) => b.open - a.open || b.since_ms - a.since_ms);
    this.noAlerts.hidden = episodes.length > 0;
    arrange(this.alerts, episodes.slice(0, 20).map((episode) => this.card(episode, state.head)));
    const more = state.head.open - episodes.slice(0, 20).filter((episode) => episode.open).length;
    setText(this.moreAlerts, more > 0 ? `${count(more)} more are open, on the pages of their keys` : "");
    const shown = new Set(episodes.slice(0, 20).map((episode) => episode.id));
    for (const id of this.cards.keys()) if (!shown.has(id)) this.cards.delete(id);
  }

  card(episode, head) {
    const known = this.cards.get(episode.id);
    const said = JSON.stringify(episode);
    if (known && known.said === said) {
      if (episode.open) setText(known.age, age(episode, head));
      return known.item;
    }
    const ageText = el("span", {}, age(episode, head));
    const blamed = head.features.length < 2 ? "" : episode.shares.filter(([, share]) => share >= 0.005).map(([name, share]) => `${name} ${percent(share)}`).join(", ");
    const item = el(
      "li",
      { class: "card", "data-open": episode.open },
      el(
        "p",
        { class: "head" },
        el("span", { class: "symbol", "aria-hidden": "true" }, episode.open ? "▲" : "▽"),
        el("a", { href: keyLink(episode.key, episode.partition, { at: episode.since_ms }) }, episode.key),
        ageText,
      ),
      episode.why ? el("p", { class: "small" }, sentence(episode.why)) : null,
      el("p", { class: "muted small" }, time(episode.since_ms), ` · peak score ${number(episode.peak_score)} · ${oneIn(episode.tail_probability)}`, blamed && ` · ${blamed}`, episode.adapting && " · the threshold follows"),
      saidText(episode),
      episode.open && !episode.acknowledged && !this.page.readOnly
        ? el("button", { type: "button", class: "small", onclick: () => say({ ...aboutAlert(episode), action: "acknowledge" }, `You look at ${episode.key}.`) }, "Acknowledge", el("span", { class: "sr" }, ` the alert of ${episode.key}`))
        : null,
    );
    if (known) {
      const held = known.item.contains(document.activeElement) && document.activeElement.tagName;
      known.item.replaceWith(item);
      if (held) (item.querySelector(held) || item.querySelector("a")).focus();
    }
    this.cards.set(episode.id, { item, age: ageText, said });
    return item;
  }
}

function scorerText(head, behind) {
  if (head.behind > 1000) return `this page still reads ${count(head.behind)}`;
  if (!head.all_told) return "not known: the scorer does not tell every score";
  if (head.stands) return head.lag ? `nothing scored for ${span(head.quiet_ms)}: does a scorer run?` : `nothing came for ${span(head.quiet_ms)}`;
  return behind ? "the scorer is behind" : "the scorer keeps up";
}

const age = (episode, head) =>
  episode.open ? `open for ${span(head.now_ms - episode.since_ms)}` : `${ENDS[episode.reason] || `over: ${episode.reason}`}, lasted ${span(episode.until_ms - episode.since_ms)}`;

export function saidText(episode) {
  const lines = [];
  if (episode.acknowledged) lines.push(el("span", {}, `✓ ${episode.acknowledged.who} looks at it, `, time(episode.acknowledged.at_ms)));
  if (episode.verdict) {
    const { action, who, note, at_ms } = episode.verdict;
    lines.push(el("span", {}, action === "true" ? "● True alarm, says " : "○ False alarm, says ", who, ", ", time(at_ms), note ? `: ${note}` : ""));
  }
  return lines.length ? el("p", { class: "said small" }, ...lines) : null;
}

// Keep the places of rows that were there; new ones come at the end.
function steady(rows, held) {
  const place = new Map(held.map((name, index) => [name, index]));
  const at = (row) => place.get(`${row.partition} ${row.key}`) ?? held.length;
  return [...rows].sort((a, b) => at(a) - at(b));
}

function legend() {
  return el(
    "details",
    { class: "legend small" },
    el("summary", {}, "What the signs mean"),
    el(
      "ul",
      {},
      [["5", "an alert is open"], ["4", "as rare as an alert needs, just now"], ["3", "within ten times of that"], ["2", "usual for this key"], ["1", "the key is new: no score until enough of it was seen"], ["0", "nothing came for much longer than usual"]].map(([level, text]) =>
        el("li", { "data-level": LEVELS[level][2] }, el("span", { class: "symbol", "aria-hidden": "true" }, LEVELS[level][0]), ` ${LEVELS[level][1]}: ${text}`),
      ),
      el("li", {}, "Columns: the taller, the rarer the worst event of that time; a cap on top means an open alert; a hollow box, missing values; a bare line, no event."),
    ),
  );
}
