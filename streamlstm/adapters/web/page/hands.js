// What people do: acknowledge, judge, mute. Sent with an id of its own, so that a second try is no second record.
import { byId, el } from "./dom.js";
import { post } from "./api.js";

const NAME = "streamlstm-name";

export const myName = () => localStorage.getItem(NAME) || "";

function newId() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

export function notice(text, kind = "error") {
  const place = byId("notices");
  const close = el("button", { type: "button", class: "plain", "aria-label": "Close this message" }, "✕");
  const one = el("p", { class: `notice ${kind}` }, el("span", {}, text), close);
  close.addEventListener("click", () => one.remove());
  place.replaceChildren(one);
  if (kind !== "error") setTimeout(() => one.remove(), 6000);
}

// Ask for the viewer's name, once; null if they would rather not.
export function askName() {
  const dialog = byId("dialog");
  return new Promise((done) => {
    const input = el("input", { id: "name", maxlength: 80, required: true, autocomplete: "name", value: myName() });
    const form = el(
      "form",
      { method: "dialog" },
      el("h2", { id: "dialog-title" }, "Your name"),
      el("p", { class: "muted" }, "Colleagues see it beside what you say. It stays in this browser."),
      el("label", { for: "name" }, "Name"),
      input,
      el(
        "div",
        { class: "buttons" },
        el("button", { type: "submit", class: "main", value: "ok" }, "Save"),
        el("button", { type: "button", onclick: () => dialog.close("") }, "Cancel"),
      ),
    );
    dialog.replaceChildren(form);
    dialog.returnValue = "";
    dialog.addEventListener(
      "close",
      () => {
        const name = dialog.returnValue === "ok" ? input.value.trim() : "";
        if (name) {
          localStorage.setItem(NAME, name);
          dispatchEvent(new CustomEvent("named"));
        }
        done(name || null);
      },
      { once: true },
    );
    dialog.showModal();
    input.focus();
  });
}

// Say something about a key or an alert; returns whether it is stored.
export async function say(what, told) {
  const who = myName() || (await askName());
  if (!who) return false;
  const body = { ...what, id: newId(), who };
  for (let attempt = 0; ; attempt++) {
    try {
      await post("/api/feedback", body);
      notice(told, "done");
      return true;
    } catch (error) {
      const again = (error.status === undefined || error.status === 503) && attempt < 2;
      if (!again) {
        notice(`Not stored: ${error.message}`);
        return false;
      }
      await new Promise((wait) => setTimeout(wait, 1000));
    }
  }
}

export const aboutAlert = (episode) => ({ key: episode.key, partition: episode.partition, alert: episode.id });
