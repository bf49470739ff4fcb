// The panel: what the model is, and how it answers.

import { byId, element } from "./dom.js";
import { key, saveSettings, settings } from "./store.js";

// name, label, [least, most, step], what it is; the server's own default applies where a field is empty.
const OPTIONS = [
  ["temperature", "Temperature", [0, 2, 0.05], "0 always takes the likeliest word; 1 draws as the model was trained."],
  ["top_p", "Top p", [0, 1, 0.01], "Draws from the likeliest words that together have this share; 1 is off."],
  ["top_k", "Top k", [0, 1000, 1], "Draws from so many of the likeliest; 0 is off."],
  ["min_p", "Min p", [0, 1, 0.01], "Leaves out words with less than this share of the likeliest; 0 is off."],
  ["repetition_penalty", "Repetition penalty", [0.5, 2, 0.01], "Above 1, repetitions become rarer."],
  ["max_tokens", "Longest answer", [1, 1000000, 1], "In tokens; empty is as long as fits."],
  ["seed", "Seed", [0, 4294967295, 1], "The same seed gives the same answer; empty draws one."],
];

const PLACEHOLDERS = { temperature: "1", top_p: "1", top_k: "0", min_p: "0", repetition_penalty: "1" };

// The fields of a request.
export function options() {
  const given = {};
  for (const [name] of OPTIONS) {
    const value = settings[name];
    if (value !== undefined && value !== "") given[name] = Number(value);
  }
  return given;
}

export function build() {
  const form = byId("options");
  const system = element("textarea", { id: "option-system", rows: 3 });
  const fields = [["system", system]];
  form.append(
    element("div", { class: "option" }, element("label", { for: "option-system" }, "System message"), system),
  );
  for (const [name, label, [min, max, step], about] of OPTIONS) {
    const id = `option-${name}`;
    const placeholder = PLACEHOLDERS[name] ?? "";
    const input = element("input", { id, type: "number", min, max, step, placeholder, "aria-describedby": `${id}-about` });
    fields.push([name, input]);
    const said = element("p", { class: "about", id: `${id}-about` }, about);
    form.append(element("div", { class: "option" }, element("label", { for: id }, label), input, said));
  }
  const fill = () => fields.forEach(([name, field]) => (field.value = settings[name] ?? ""));
  for (const [name, field] of fields) {
    field.addEventListener("input", () => {
      if (!field.checkValidity()) return;
      settings[name] = field.value;
      saveSettings();
    });
  }
  form.addEventListener("submit", (event) => event.preventDefault());
  byId("defaults").addEventListener("click", () => {
    for (const [name] of fields) delete settings[name];
    saveSettings();
    fill();
  });
  fill();

  const panel = byId("panel");
  byId("key").value = key.get();
  byId("access").addEventListener("submit", (event) => {
    event.preventDefault();
    panel.close();
  });
  byId("key").addEventListener("change", () => {
    key.set(byId("key").value.trim());
    panel.dispatchEvent(new Event("keychange"));
  });
  byId("settings").addEventListener("click", () => panel.showModal());
  byId("close").addEventListener("click", () => panel.close());
  // A click beside it.
  panel.addEventListener("click", (event) => event.target === panel && event.offsetX < 0 && panel.close());
}

const bytes = (n) => {
  const unit = ["bytes", "kB", "MB", "GB"].findIndex((_, i) => n < 999.5 * 1000 ** i || i === 3);
  return `${(n / 1000 ** unit).toPrecision(3)} ${["bytes", "kB", "MB", "GB"][unit]}`;
};

// `speeds` are the tokens per second of the answers so far.
export function card(model, speeds) {
  const { candlewick: facts } = model;
  const context = facts.n_ctx * facts.kv_bytes_per_token;
  const rows = {
    Name: facts.name || model.id,
    Kind: `${facts.architecture}, ${facts.quantization}`,
    File: bytes(facts.file_bytes),
    Memory: `${bytes(facts.weight_bytes)} of weights, ${bytes(context)} more for a full context`,
    Context: `${facts.n_ctx.toLocaleString("en")} tokens`,
    "Runs on": `${facts.device} (${facts.isa ?? facts.engine}), ${facts.n_threads} thread${facts.n_threads > 1 ? "s" : ""}`,
    Speed: speeds.length ? `${Math.round(speeds.at(-1)).toLocaleString("en")} tokens a second` : "no answer yet",
  };
  const parts = Object.entries(rows).flatMap(([name, value]) => [element("dt", {}, name), element("dd", {}, value)]);
  byId("card").replaceChildren(...parts);
}
