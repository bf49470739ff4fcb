// The page: what happens when, between the conversation, the server and what is shown.

import * as api from "./api.js";
import { byId, element, grow } from "./dom.js";
import * as panel from "./panel.js";
import { hide } from "./shading.js";
import { Conversation, saveSettings, settings } from "./store.js";
import { TurnView } from "./turns.js";

const conversation = new Conversation();
const views = new Map();
const speeds = [];
let model = null;
// The answer that is being written, and how it is stopped.
let running = null;

const does = {
  edit: (turn, text) => ask(turn.parent, text),
  again: (turn) => answer(turn.parent),
  choose: (turn) => {
    conversation.choose(turn);
    show();
  },
};

// Shows the chosen branch.
function show() {
  const path = conversation.path();
  byId("welcome").hidden = path.length > 0;
  byId("new").disabled = path.length === 0;
  views.clear();
  hide();
  for (const turn of path) {
    const view = new TurnView(turn, conversation, does);
    view.draw(settings.shade);
    views.set(turn.id, view);
  }
  byId("turns").replaceChildren(...[...views.values()].map((view) => view.item));
}

function say(text) {
  byId("status").textContent = text;
}

function isAtEnd() {
  const page = document.documentElement;
  return page.scrollHeight - page.scrollTop - page.clientHeight < 80;
}

function toEnd() {
  document.documentElement.scrollTop = document.documentElement.scrollHeight;
}

function ask(parent, text) {
  stop();
  answer(conversation.add(parent, "user", text).id);
}

// Lets the model answer the turn `parent`.
async function answer(parent) {
  stop();
  const turn = conversation.add(parent, "assistant", "");
  turn.running = true;
  const stopper = new AbortController();
  running = { turn, stopper };
  show();
  toEnd();
  busy(true);
  say("The model answers.");
  const before = conversation.upTo(conversation.turns[parent]).map(({ role, text: content }) => ({ role, content }));
  const system = settings.system?.trim() ? [{ role: "system", content: settings.system }] : [];
  const asked = { messages: [...system, ...before], logprobs: true, top_logprobs: 5, ...panel.options() };
  const redraw = drawing(turn);
  try {
    if (!model) await meet();
    for await (const chunk of api.chat({ model: model.id, ...asked }, stopper.signal)) take(turn, chunk, redraw);
  } catch (error) {
    if (error.name !== "AbortError") {
      turn.error = error.message;
      if (error.status === 401) notMet(error);
    }
  }
  turn.running = false;
  if (stopper.signal.aborted) turn.facts = [turn.facts, "stopped"].filter(Boolean).join(", ");
  conversation.save();
  redraw.now();
  if (running?.turn === turn) {
    running = null;
    busy(false);
    say(turn.error ?? "The answer is complete.");
  }
}

function take(turn, chunk, redraw) {
  const [choice] = chunk.choices;
  if (!choice) {
    turn.facts = facts(turn, chunk.usage);
    return;
  }
  turn.text += choice.delta.content ?? "";
  for (const token of choice.logprobs?.content ?? []) {
    const others = token.top_logprobs.filter((other) => other.id !== token.id);
    turn.tokens.push([token.token, round(token.logprob), others.map((other) => [other.token, round(other.logprob)])]);
  }
  if (choice.finish_reason) {
    turn.cut = choice.finish_reason === "length";
    const speed = choice.candlewick?.timings.generation_tps;
    turn.speed = speed ?? null;
    if (speed) speeds.push(speed);
    if (model) panel.card(model, speeds);
  }
  redraw();
}

const round = (logprob) => Math.round(logprob * 1e4) / 1e4;

function facts(turn, usage) {
  const said = [`${usage.completion_tokens} tokens`];
  if (turn.speed) said.push(`${Math.round(turn.speed).toLocaleString("en")} a second`);
  if (turn.cut) said.push("cut at the limit");
  return said.join(", ");
}

// Draws a turn at most once a frame, and keeps it now and then.
function drawing(turn) {
  let asked = 0;
  let saved = performance.now();
  const now = () => {
    cancelAnimationFrame(asked);
    asked = 0;
    const follow = isAtEnd();
    views.get(turn.id)?.draw(settings.shade);
    if (follow) toEnd();
    if (performance.now() - saved > 1000) {
      saved = performance.now();
      conversation.save();
    }
  };
  const redraw = () => (asked ||= requestAnimationFrame(now));
  redraw.now = now;
  return redraw;
}

function stop() {
  running?.stopper.abort();
}

function busy(is) {
  const focused = document.activeElement;
  byId("send").hidden = is;
  byId("stop").hidden = !is;
  // Focus does not get lost with the button that had it.
  if (focused === byId("send") || focused === byId("stop")) byId(is ? "stop" : "prompt").focus();
}

function beginnings() {
  const topics = model?.candlewick.topics;
  const few = topics
    ? [...topics].sort(() => Math.random() - 0.5).slice(0, 5).map((topic) => `Write a haiku about ${topic}`)
    : ["Explain why the sky is blue", "Write a haiku about ice hockey", "Plan a rainy Sunday", "Name three good names for a cat"];
  byId("about").textContent = topics
    ? "A very small model that writes haiku. Everything stays on the machine it runs on."
    : "Everything stays on the machine that the model runs on.";
  byId("beginnings").replaceChildren(
    ...few.map((text) => element("button", { type: "button", onclick: () => ask(0, text) }, text)),
  );
}

// Asks which model is here.
async function meet() {
  model = await api.model();
  byId("model").textContent = model.id;
  panel.card(model, speeds);
  beginnings();
}

function notMet(error) {
  say(error.message);
  byId("model").textContent = error.status === 401 ? "An API key is needed" : "The server is not reached";
  if (error.status === 401 && !byId("panel").open) byId("panel").showModal();
}

function wear(theme) {
  document.documentElement.dataset.theme = theme;
}

const dark = matchMedia("(prefers-color-scheme: dark)");
const chosenTheme = () => settings.theme ?? (dark.matches ? "dark" : "light");
wear(chosenTheme());
dark.addEventListener("change", () => wear(chosenTheme()));
byId("theme").addEventListener("click", () => {
  settings.theme = chosenTheme() === "dark" ? "light" : "dark";
  saveSettings();
  wear(settings.theme);
});

const prompt = byId("prompt");
const composer = byId("composer");
prompt.addEventListener("input", () => {
  grow(prompt);
  byId("send").disabled = !prompt.value.trim();
});
prompt.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    composer.requestSubmit();
  }
});
composer.addEventListener("submit", (event) => {
  event.preventDefault();
  const text = prompt.value.trim();
  if (!text || running) return;
  prompt.value = "";
  grow(prompt);
  byId("send").disabled = true;
  ask(conversation.path().at(-1)?.id ?? 0, text);
});
byId("send").disabled = true;
byId("stop").addEventListener("click", stop);
document.addEventListener("keydown", (event) => event.key === "Escape" && !byId("panel").open && stop());

byId("new").addEventListener("click", () => {
  stop();
  conversation.clear();
  show();
  beginnings();
  prompt.focus();
});

const shade = byId("shade");
const press = () => shade.setAttribute("aria-pressed", String(Boolean(settings.shade)));
shade.addEventListener("click", () => {
  settings.shade = !settings.shade;
  saveSettings();
  press();
  for (const view of views.values()) view.draw(settings.shade);
});
press();

addEventListener("scroll", hide, { passive: true });
addEventListener("pagehide", () => conversation.save());
byId("panel").addEventListener("keychange", () => meet().catch(notMet));
panel.build();
show();
beginnings();
meet().catch(notMet);
prompt.focus();
