// One key: its series now and back through time, why it is unusual, and what to do about it.
import { arrange, el, setText } from "./dom.js";
import { get } from "./api.js";
import { figure, fromAxis, loadPlotly, Series } from "./chart.js";
import { keyLink, LEVELS, levelText, saidText } from "./fleet.js";
import { count, number, oneIn, percent, sentence, span, time } from "./format.js";
import { aboutAlert, notice, say } from "./hands.js";

const MUTES = [["15 minutes", 15], ["an hour", 60], ["8 hours", 480], ["a day", 1440], ["a week", 10080]];
const REDRAW_MS = 450;

export class KeyView {
  constructor(live, page, key, parameters) {
    this.live = live;
    this.page = page;
    this.key = key;
    const asked = (name) => (parameters.has(name) ? Number(parameters.get(name)) : null);
    this.partition = asked("p");
    this.at = asked("at");
    this.spanMs = asked("span");
    this.alert = parameters.get("alert");
    this.feature = parameters.get("feature");
    this.about = {};
    this.following = this.at === null;
    this.cards = new Map();
    this.onKey = (event) => this.take(event.detail);
    this.onNoKey = () => this.showUnknown();
    live.addEventListener("key", this.onKey);
    live.addEventListener("nokey", this.onNoKey);
    this.schemes = matchMedia("(prefers-color-scheme: dark)");
    this.onScheme = () => setTimeout(() => this.draw(), 50);
    this.schemes.addEventListener("change", this.onScheme);
    this.build();
  }

  build() {
    this.symbol = el("span", { class: "symbol", "aria-hidden": "true" });
    this.standing = el("span", {});
    this.standingLine = el("p", { class: "standing" }, this.symbol, this.standing);
    this.hands = el("div", { class: "tools" });
    this.spans = el("div", { class: "segments", role: "group", "aria-label": "Time shown" });
    this.followButton = el("button", { type: "button", onclick: () => this.follow() }, "Live");
    this.features = el("select", { "aria-label": "Feature shown", onchange: (event) => this.chooseFeature(event.target.value) });
    this.chart = el("div", { class: "chart", role: "img", "aria-label": "Series of this key" }, el("div", { class: "loading" }, el("span", { class: "pulse", "aria-hidden": "true" }), el("p", {}, "Reading the log …")));
    this.shown = el("span", {});
    this.hint = el("span", {});
    this.latest = el("tbody", {});
    this.latestTitle = el("h2", {}, "Latest event");
    this.episodes = el("div", { class: "episodes" });
    this.noEpisodes = el("p", { class: "muted" }, "No alert of this key among the last ones.");
    this.panel = el(
      "div",
      {},
      el(
        "div",
        { class: "panel" },
        el(
          "div",
          { class: "tools" },
          this.spans,
          el("button", { type: "button", onclick: () => this.shift(-0.75) }, "◀ Earlier"),
          el("button", { type: "button", onclick: () => this.shift(0.75) }, "Later ▶"),
          this.followButton,
          this.features,
          el("button", { type: "button", onclick: () => this.copyLink() }, "Copy link"),
        ),
        this.chart,
        el("p", { class: "under" }, this.shown, this.hint),
      ),
      el(
        "div",
        { class: "pair" },
        el("section", { "aria-labelledby": "key-alerts" }, el("h2", { id: "key-alerts" }, "Alerts of this key"), this.noEpisodes, this.episodes),
        el("section", {}, this.latestTitle, el("table", {}, this.latest)),
      ),
    );
    this.unknown = el("div", { class: "empty", hidden: true }, el("h2", {}, "No such key"), el("p", {}, "Nothing was heard of it lately. It may be new, long silent, or misspelt."), el("p", {}, el("a", { href: "#/" }, "All keys")));
    this.root = el(
      "div",
      {},
      el("a", { class: "back", href: "#/" }, "← All keys"),
      el("div", { class: "keyhead" }, el("div", {}, el("h1", {}, this.key), this.standingLine), this.hands),
      this.unknown,
      this.panel,
    );
  }

  async start() {
    if (this.alert && this.at === null) {
      try {
        const moment = await get("/api/alert", { id: this.alert });
        this.partition = moment.partition;
        this.at = moment.at_ms;
        this.following = false;
      } catch {
        notice("That alert is older than this page remembers; here is the key as it is now.", "done");
      }
    }
    this.listen();
    loadPlotly().catch((error) => setText(this.chart, error.message));
  }

  leave() {
    this.live.removeEventListener("key", this.onKey);
    this.live.removeEventListener("nokey", this.onNoKey);
    this.schemes.removeEventListener("change", this.onScheme);
    this.gone = true;
    clearTimeout(this.waiting);
    if (globalThis.Plotly && this.drawn) globalThis.Plotly.purge(this.chart);
  }

  listen() {
    this.series = null;
    this.live.open({ key: this.key, p: null, partition: this.partition, span: this.spanMs ?? undefined, feature: this.feature || undefined });
  }

  // From the fleet's state: bucket widths, feature names, what is promised.
  update() {
    const { head } = this.live.state;
    this.head = head;
    if (!this.spans.children.length) this.showSpans(head);
    if (!this.features.children.length) {
      this.features.append(el("option", { value: "" }, head.features.length > 1 ? "Features most involved" : "Its feature"));
      for (const name of head.features) this.features.append(el("option", { value: name }, name));
      this.features.hidden = head.features.length < 2;
      this.features.value = this.feature || "";
    }
    setText(this.hint, head.explained ? "" : "The band is known at alerts only: the scorer runs without --explain all.");
  }

  showSpans(head) {
    const { width_ms } = head;
    this.spanMs ??= 6 * width_ms;
    for (const ms of [width_ms, 6 * width_ms, 60 * width_ms, 360 * width_ms])
      this.spans.append(el("button", { type: "button", "data-ms": ms, onclick: () => this.zoom(ms) }, span(ms)));
    this.showPressed();
  }

  showPressed() {
    for (const button of this.spans.children) button.setAttribute("aria-pressed", Math.abs(Number(button.dataset.ms) - this.spanMs) < 1);
    this.followButton.setAttribute("aria-pressed", this.following);
    setText(this.followButton, this.following ? "● Live" : "○ Go live");
  }

  showUnknown() {
    this.unknown.hidden = false;
    this.panel.hidden = true;
    this.standingLine.hidden = true;
  }

  take(message) {
    if (this.gone) return;
    this.unknown.hidden = true;
    this.panel.hidden = false;
    this.nowMs = message.now_ms;
    if (message.about) {
      Object.assign(this.about, message.about);
      this.partition = this.about.partition;
      this.showAbout();
    }
    if (message.series) {
      const piece = message.series;
      if (message.first) {
        this.series = new Series(piece.width_ms);
        this.spanMs ??= message.span_ms;
        this.whole = message.reaches_back;
        this.fromMs = message.from_ms;
        this.names = piece.features.map((feature) => feature.name);
      }
      this.series.add(piece);
      this.series.forgetBefore(this.nowMs - 1.5 * this.spanMs);
      if (piece.latest.length) this.showLatest(piece.latest);
      if (message.first && this.following && !this.whole) this.fillUp();
      if (message.first && !this.following) this.look(this.at - this.spanMs / 2, this.at + this.spanMs / 2);
      else if (this.following) this.drawSoon();
    }
  }

  // What memory does not reach back to comes from the log.
  async fillUp() {
    const series = this.series, bins = series.score.columns.bin;
    const until = bins.length ? bins[0] * series.width : this.nowMs;
    if (until - this.fromMs < series.width) return;
    try {
      const piece = await get("/api/series", { key: this.key, partition: this.partition, from: Math.floor(this.fromMs), until: Math.ceil(until), width: series.width, feature: this.names });
      if (this.gone || series !== this.series) return;
      series.add(trimmed(piece, until, series.width));
      this.drawSoon();
    } catch (error) {
      notice(error.message);
    }
  }

  zoom(ms) {
    const middle = this.range ? (this.range[0] + this.range[1]) / 2 : this.nowMs;
    this.spanMs = ms;
    if (this.following) this.listen();
    else this.look(middle - ms / 2, middle + ms / 2);
    this.showPressed();
  }

  shift(share) {
    const [from, until] = this.range || [this.nowMs - this.spanMs, this.nowMs];
    const by = share * (until - from);
    if (until + by > this.nowMs + (until - from) / 2) this.follow();
    else this.look(from + by, until + by);
  }

  follow() {
    this.following = true;
    this.at = null;
    this.past = null;
    this.listen();
    this.showPressed();
  }

  chooseFeature(name) {
    this.feature = name;
    const { following, range } = this;
    this.listen();
    if (!following && range) this.look(...range);
  }

  // Look at the past: what is shown stays, until the answer is there.
  async look(from, until) {
    this.following = false;
    this.range = [from, until];
    this.spanMs = until - from;
    this.showPressed();
    const asked = (this.asked = Symbol("look"));
    setText(this.shown, "Reading the log …");
    try {
      const piece = await get("/api/series", { key: this.key, partition: this.partition ?? 0, from: Math.floor(from - this.spanMs / 2), until: Math.ceil(until + this.spanMs / 2), feature: this.feature ? [this.feature] : this.names });
      if (this.gone || this.asked !== asked || this.following) return;
      this.past = new Series(piece.width_ms);
      this.past.add(piece);
      this.at = (from + until) / 2;
      this.partly = piece.whole_until_ms < until ? piece.whole_until_ms : null;
      this.draw();
    } catch (error) {
      notice(error.message);
      setText(this.shown, "The past could not be read.");
    }
  }

  drawSoon() {
    if (this.waiting) return;
    this.waiting = setTimeout(() => {
      this.waiting = null;
      this.draw();
    }, Math.max(0, REDRAW_MS - (performance.now() - (this.drawnAt || 0))));
  }

  async draw() {
    const series = this.following ? this.series : this.past;
    if (!series || this.gone) return;
    const Plotly = await loadPlotly();
    if (this.gone) return;
    this.drawnAt = performance.now();
    if (this.following) this.range = [this.nowMs - this.spanMs, this.nowMs];
    const narrow = this.chart.clientWidth < 600;
    if (!this.drawn) this.chart.replaceChildren();
    const first = !this.drawn;
    this.drawn = true;
    const { traces, layout } = figure(series, { range: this.range, gapMs: this.head?.gap_ms ?? 1000, about: this.about, narrow });
    layout.height = 190 + Math.max(240, 170 * series.features.size);
    this.drawing = true;
    await Plotly.react(this.chart, traces, layout, { displayModeBar: false, scrollZoom: true, responsive: true, doubleClick: false });
    this.drawing = false;
    if (first) this.chart.on("plotly_relayout", (change) => this.moved(change));
    this.describe(series);
  }

  // The chart was dragged or zoomed by hand.
  moved(change) {
    const from = change["xaxis.range[0]"] ?? change["xaxis.range"]?.[0], until = change["xaxis.range[1]"] ?? change["xaxis.range"]?.[1];
    if (from === undefined || this.drawing) return;
    clearTimeout(this.settling);
    this.following = false;
    this.showPressed();
    this.past ??= this.series;
    this.settling = setTimeout(() => this.look(fromAxis(from), fromAxis(until)), 250);
  }

  describe(series) {
    const [from, until] = this.range;
    this.shown.replaceChildren("From ", time(from), " to ", time(until), this.partly && !this.following ? `. Read up to ${new Date(this.partly).toLocaleTimeString()}: there is more, zoom in.` : series.empty ? ". Nothing here." : "");
    const { score, threshold } = series.score.columns;
    const last = score?.length ? score[score.length - 1] : null;
    this.chart.setAttribute("aria-label", `Series of ${this.key} from ${new Date(from).toLocaleString()} to ${new Date(until).toLocaleString()}. ${last === null || last === undefined ? "No score at its end." : `Score at its end ${last.toFixed(1)}, threshold ${(threshold.at(-1) ?? 0).toFixed(1)}.`}`);
  }

  async copyLink() {
    const [from, until] = this.range || [this.nowMs - this.spanMs, this.nowMs];
    const more = { at: Math.round((from + until) / 2), span: Math.round(until - from), ...(this.feature ? { feature: this.feature } : {}) };
    const address = location.origin + location.pathname + keyLink(this.key, this.partition ?? 0, more);
    try {
      await navigator.clipboard.writeText(address);
      notice("Link to this moment copied.", "done");
    } catch {
      notice(`Copy it from here: ${address}`, "done");
    }
  }

  showAbout() {
    const { about } = this;
    const head = this.head || this.live.state?.head;
    const [symbol, label, kind] = LEVELS[about.level];
    setText(this.symbol, symbol);
    this.standingLine.dataset.level = kind;
    const apart = [about.missing && `${count(about.missing)} events without a value`, about.late && `${count(about.late)} came too late`].filter(Boolean);
    setText(this.standing, head ? [about.level === 2 && !about.muted_until_ms ? label : `${label}: ${levelText(about, head)}`, ...apart].join(" · ") : label);
    this.showHands();
    this.noEpisodes.hidden = about.episodes.length > 0;
    arrange(this.episodes, about.episodes.map((episode) => this.card(episode)));
  }

  showHands() {
    const { about } = this;
    if (this.page.readOnly) return;
    const said = String(about.muted_until_ms);
    if (this.handsSaid === said) return;
    this.handsSaid = said;
    const key = { key: this.key, partition: about.partition };
    if (about.muted_until_ms) {
      this.hands.replaceChildren(
        el("span", { class: "muted" }, "Muted until ", time(about.muted_until_ms)),
        el("button", { type: "button", onclick: () => say({ ...key, action: "unmute" }, `${this.key} is no longer muted.`) }, "Unmute"),
      );
      return;
    }
    const length = el("select", { id: "mute-for" }, MUTES.map(([text, minutes]) => el("option", { value: minutes }, text)));
    this.hands.replaceChildren(
      el("label", { for: "mute-for" }, el("span", { class: "muted" }, "Mute for"), length),
      el("button", { type: "button", onclick: () => say({ ...key, action: "mute", minutes: Number(length.value) }, `${this.key} is muted: its alerts stay here and are not sent.`) }, "Mute"),
    );
  }

  showLatest(latest) {
    this.latest.replaceChildren(...latest.map(({ name, value, unit }) => el("tr", {}, el("th", { scope: "row" }, name), el("td", { class: "number" }, value === null ? "missing" : `${number(value)} ${unit}`))));
  }

  card(episode) {
    const said = JSON.stringify(episode);
    const known = this.cards.get(episode.id);
    if (known?.said === said) return known.item;
    const open = known ? [...known.item.querySelectorAll("details")].map((one) => one.open) : [];
    const facts = el(
      "div",
      {},
      el(
        "p",
        { class: "head" },
        el("span", { class: "symbol", "aria-hidden": "true" }, episode.open ? "▲" : "▽"),
        el("a", { href: keyLink(this.key, episode.partition, { at: episode.since_ms, span: Math.round(this.spanMs || 60000) }) }, episode.open ? "Open since " : "From ", time(episode.since_ms)),
        el("span", {}, episode.open ? `${count(episode.events)} event${episode.events === 1 ? "" : "s"}` : `lasted ${span(episode.until_ms - episode.since_ms)}, ${episode.reason}`),
      ),
      episode.why ? el("p", {}, sentence(episode.why)) : null,
      el("p", { class: "muted small" }, `${oneIn(episode.tail_probability)} · peak score ${number(episode.peak_score)}${episode.threshold === null ? "" : ` over a threshold of ${number(episode.threshold)}`}`),
      evidence(episode.records[0]),
      saidText(episode),
    );
    const payload = this.payload(episode);
    [...payload.querySelectorAll("details")].forEach((one, place) => (one.open = open[place] || false));
    const hands = known?.hands || (this.page.readOnly ? null : this.verdict(episode)); // somebody may be typing in it
    if (hands) hands.firstChild.hidden = Boolean(episode.acknowledged);
    const item = known?.item || el("article", { class: "card" }, facts, hands, payload);
    item.dataset.open = episode.open;
    known?.facts.replaceWith(facts);
    known?.payload.replaceWith(payload);
    this.cards.set(episode.id, { item, facts, hands, payload, said });
    return item;
  }

  verdict(episode) {
    const why = el("input", { maxlength: 500, placeholder: "A word why (optional)", "aria-label": `Why the alert of ${new Date(episode.since_ms).toLocaleTimeString()} is true or false` });
    const judge = async (action, told) => {
      if (await say({ ...aboutAlert(episode), action, note: why.value }, told)) why.value = "";
    };
    return el(
      "div",
      { class: "verdict" },
      el("button", { type: "button", onclick: () => say({ ...aboutAlert(episode), action: "acknowledge" }, `You look at ${episode.key}.`) }, "Acknowledge"),
      why,
      el("button", { type: "button", onclick: () => judge("true", "Marked as a true alarm.") }, "True alarm"),
      el("button", { type: "button", onclick: () => judge("false", "Marked as a false alarm.") }, "False alarm"),
    );
  }

  payload(episode) {
    const place = el("pre", { tabindex: "0", "aria-label": "Record" });
    const record = episode.records[0];
    const load = async () => {
      try {
        const found = await get("/api/record", { partition: episode.partition, offset: record.opened_offset });
        setText(place, found.value ?? "The log does not have it any more.");
      } catch (error) {
        setText(place, error.message);
      }
    };
    return el(
      "div",
      {},
      el("details", { class: "small" }, el("summary", {}, "What the webhook gets"), el("pre", { tabindex: "0", "aria-label": "Alert record" }, JSON.stringify(record, null, 2))),
      el("details", { class: "small", ontoggle: (event) => event.target.open && !place.textContent && load() }, el("summary", {}, `The event itself, offset ${record.opened_offset} of partition ${episode.partition}`), place),
    );
  }
}

// Shares, and what came against what was expected.
function evidence(record) {
  if (!record.features.length) return null;
  const rows = [...record.features].sort((a, b) => b.share - a.share).slice(0, 8);
  return el(
    "div",
    { class: "scroll", tabindex: "0", role: "group", "aria-label": "What came and what was expected" },
    el(
      "table",
      { class: "small" },
      el("thead", {}, el("tr", {}, ["Feature", "Share", "Came", "Expected", "Usual range"].map((text, place) => el("th", { scope: "col", class: place > 1 ? "number" : null }, text)))),
      el(
        "tbody",
        {},
        rows.map((feature) => {
          const bar = el("span", {});
          bar.style.width = percent(feature.share).replace(" ", "");
          return el(
            "tr",
            {},
            el("th", { scope: "row" }, feature.unit ? `${feature.name} (${feature.unit})` : feature.name),
            el("td", {}, el("span", { class: "share", "aria-hidden": "true" }, bar), percent(feature.share)),
            el("td", { class: "number" }, between(feature.actual)),
            el("td", { class: "number" }, between(feature.expected)),
            el("td", { class: "number" }, between([feature.low, feature.high].flat())),
          );
        }),
      ),
    ),
  );
}

// A number, or the range of a frame's samples.
function between(values) {
  const found = [values].flat().filter((value) => value !== null);
  if (!found.length) return "missing";
  const [least, most] = [number(Math.min(...found)), number(Math.max(...found))];
  return least === most ? least : `${least} to ${most}`;
}

// Leave out what begins where the newer piece does.
function trimmed(piece, until, width) {
  const first = Math.floor(until / width);
  const cut = (bins) => {
    const at = bins.bin.findIndex((bin) => bin >= first);
    return at < 0 ? bins : Object.fromEntries(Object.entries(bins).map(([name, values]) => [name, values.slice(0, at)]));
  };
  return { ...piece, score: cut(piece.score), features: piece.features.map(({ name, unit, ...bins }) => ({ name, unit, ...cut(bins) })) };
}
