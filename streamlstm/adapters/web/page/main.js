// The page: who may see it, which view, and whether it is connected.
import { byId, el, setText } from "./dom.js";
import { get, post } from "./api.js";
import { FleetView } from "./fleet.js";
import { timeText, utc } from "./format.js";
import { askName, myName } from "./hands.js";
import { KeyView } from "./key.js";
import { Live } from "./live.js";

const CONNECTIONS = { connecting: "◌ Connecting", live: "● Live", "signed out": "○ Signed out" };

class Page {
  constructor() {
    this.live = new Live();
    this.view = null;
    this.readOnly = false;
    this.live.addEventListener("connection", () => this.showConnection());
    this.live.addEventListener("state", () => {
      this.showConnection();
      this.update();
    });
    this.live.addEventListener("lost", () => this.checkSignedIn());
    addEventListener("hashchange", () => this.route());
    addEventListener("named", () => this.showName());
    byId("who").addEventListener("click", () => askName());
    byId("skip").addEventListener("click", (event) => {
      event.preventDefault(); // the address belongs to the views
      byId("main").focus();
    });
    this.showConnection();
  }

  async start() {
    byId("main").replaceChildren(loading("Reading the log"));
    let me;
    try {
      me = await get("/api/me");
    } catch {
      this.live.become("cut off");
      setTimeout(() => this.start(), 2000);
      return;
    }
    this.readOnly = me.read_only;
    byId("readonly").hidden = !me.read_only;
    if (!me.signed_in) return this.signIn();
    this.showName();
    this.route();
  }

  async checkSignedIn() {
    try {
      const me = await get("/api/me");
      if (!me.signed_in) this.signIn();
    } catch {
      // not reachable: that is what is shown already
    }
  }

  signIn() {
    this.live.close();
    this.live.become("signed out");
    this.leave();
    const input = el("input", { type: "password", id: "token", autocomplete: "current-password", required: true });
    const wrong = el("p", { class: "problem", role: "alert" });
    const form = el(
      "form",
      { class: "signin" },
      el("h1", {}, "Sign in"),
      el("p", { class: "muted" }, "Whoever started this page has its token."),
      el("label", { for: "token" }, "Token"),
      input,
      wrong,
      el("button", { type: "submit", class: "main" }, "Sign in"),
    );
    form.addEventListener("submit", async (event) => {
      event.preventDefault();
      try {
        await post("/api/login", { token: input.value });
        this.start();
      } catch (error) {
        setText(wrong, error.status === 401 ? "That is not the token." : error.message);
      }
    });
    byId("main").replaceChildren(form);
    input.focus();
  }

  leave() {
    if (this.view) this.view.leave();
    this.view = null;
  }

  async route() {
    this.leave();
    const [path, query] = location.hash.replace(/^#/, "").split("?");
    const parameters = new URLSearchParams(query || "");
    const key = path.startsWith("/key/") ? decoded(path.slice(5)) : null;
    if (key === null) {
      document.title = "streamlstm";
      this.view = new FleetView(this.live, this);
      byId("main").replaceChildren(this.live.state ? this.view.root : loading("Reading the log"));
      this.live.open(null);
    } else {
      document.title = `${key} · streamlstm`;
      this.view = new KeyView(this.live, this, key, parameters);
      byId("main").replaceChildren(this.view.root);
      this.view.start();
    }
    scrollTo(0, 0);
    this.update();
  }

  update() {
    const { state } = this.live;
    if (!state || !this.view) return;
    if (!this.view.root.isConnected) byId("main").replaceChildren(this.view.root);
    setText(byId("topic"), state.head.topic);
    this.view.update();
    this.showFoot(state.head);
    this.showTrouble(state.head);
  }

  showConnection() {
    const chip = byId("connection");
    const stands = this.live.connection === "live" && this.live.state?.head.stands;
    chip.dataset.state = stands ? "stands" : this.live.connection;
    setText(chip, stands ? "○ Nothing is scored" : CONNECTIONS[this.live.connection] || `✕ Cut off at ${timeText(Date.now())}, trying again`);
    document.body.dataset.connection = this.live.connection;
  }

  showName() {
    const button = byId("who");
    button.hidden = this.readOnly;
    setText(button, myName() ? `You: ${myName()}` : "Your name");
  }

  showFoot(head) {
    const letters = Object.entries(head.letters).map(([reason, number]) => `${number} ${reason}`);
    const parts = [
      `Bundle ${head.model || head.page_model}`,
      letters.length ? `dead letters: ${letters.join(", ")}` : "no dead letters",
      head.skipped ? `${head.skipped} scores were removed before this page read them` : "",
      head.now_ms ? `newest event ${utc(head.now_ms)}` : "",
    ];
    setText(byId("foot"), parts.filter(Boolean).join(" · "));
  }

  showTrouble(head) {
    let text = "";
    if (head.trouble) text = `The log cannot be reached, this page waits for it: ${head.trouble}`;
    else if (head.model && head.model !== head.page_model)
      text = `Scored with bundle ${head.model}, but this page has ${head.page_model}: units and bands may be wrong. Start it with the same --model.`;
    const place = byId("trouble") || byId("notices").insertAdjacentElement("afterend", el("p", { id: "trouble", class: "notice warn", role: "status" }));
    place.hidden = !text;
    setText(place, text);
  }
}

// A link that was cut short, or written by hand, may hold what is no encoding.
function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

function loading(text) {
  return el("div", { class: "loading", role: "status" }, el("span", { class: "pulse", "aria-hidden": "true" }), el("p", {}, `${text} …`));
}

new Page().start();
