// The live state: pushed by the server, merged here. A reconnect begins with a whole state, so nothing is missed.

const CUT_OFF_MS = 8000; // the server says something every two seconds, at least
const HIDDEN_MS = 5000;
const RETRY_MS = [500, 1000, 2000, 5000];
const NONE = -3;

export class Live extends EventTarget {
  constructor() {
    super();
    this.state = null;
    this.connection = "connecting";
    this.watched = null;
    this.source = null;
    this.tries = 0;
    this.heard = 0;
    setInterval(() => this.check(), 1000);
    addEventListener("online", () => this.open());
    document.addEventListener("visibilitychange", () => this.rest());
  }

  // Begin to listen; with a key, to that key too.
  open(watched = this.watched) {
    this.watched = watched;
    this.rests = false;
    this.close();
    const query = new URLSearchParams();
    for (const [name, value] of Object.entries(watched || {}))
      for (const one of Array.isArray(value) ? value : [value])
        if (one !== null && one !== undefined) query.append(name, one);
    const source = (this.source = new EventSource(`/api/stream?${query}`));
    const on = (kind, take) =>
      source.addEventListener(kind, (event) => {
        if (this.source !== source) return;
        this.heard = Date.now();
        take(JSON.parse(event.data));
      });
    on("state", (state) => this.replace(state));
    on("change", (change) => this.merge(change));
    on("key", (key) => this.dispatchEvent(new CustomEvent("key", { detail: key })));
    on("nokey", () => this.dispatchEvent(new CustomEvent("nokey")));
    source.addEventListener("error", () => this.source === source && this.lost());
    this.heard = Date.now();
    this.rest();
  }

  close() {
    if (this.source) this.source.close();
    this.source = null;
    clearTimeout(this.retry);
  }

  // A browser has six connections for all its tabs: one that nobody sees gives its own back after a while.
  rest() {
    clearTimeout(this.resting);
    if (!document.hidden && this.rests) this.open();
    else if (document.hidden && this.source)
      this.resting = setTimeout(() => {
        this.close();
        this.rests = true;
      }, HIDDEN_MS);
  }

  // The browser's own retries stop at some errors; ours do not.
  lost() {
    this.close();
    this.become("cut off");
    this.dispatchEvent(new CustomEvent("lost"));
    this.retry = setTimeout(() => this.open(), RETRY_MS[Math.min(this.tries, RETRY_MS.length - 1)]);
    this.tries += 1;
  }

  check() {
    if (this.source && Date.now() - this.heard > CUT_OFF_MS) this.lost();
  }

  become(connection) {
    if (this.connection === connection) return;
    this.connection = connection;
    this.dispatchEvent(new CustomEvent("connection"));
  }

  replace(state) {
    this.state = state;
    this.tell();
  }

  merge(change) {
    const { head, rows, episodes } = this.state;
    const shift = (change.head.until ?? head.until) - head.until;
    Object.assign(head, change.head);
    if (shift > 0) for (const row of Object.values(rows)) move(row, shift);
    for (const [number, fields] of Object.entries(change.rows)) {
      const { tail, ...others } = fields;
      const row = (rows[number] = { ...(rows[number] || {}), ...others });
      if (tail) row.strip.splice(row.strip.length - tail.length, tail.length, ...tail);
    }
    if (change.order) {
      this.state.order = change.order;
      const shown = new Set(change.order.map(String));
      for (const number of Object.keys(rows)) if (!shown.has(number)) delete rows[number];
    }
    Object.assign(episodes, change.episodes);
    for (const id of change.ended) delete episodes[id];
    this.tell();
  }

  tell() {
    this.tries = 0;
    this.become("live");
    this.dispatchEvent(new CustomEvent("state"));
  }
}

function move(row, shift) {
  const by = Math.min(shift, row.strip.length);
  row.strip.splice(0, by);
  for (let i = 0; i < by; i++) row.strip.push(NONE);
}
