// An answer token by token: the less likely one was, the stronger its shade; pointed at or reached with the arrow keys,
// it shows what else could have come.

import { byId, element } from "./dom.js";

// As in notebooks: a tint that leaves the text readable.
const STRONGEST = 0.6;

const percent = (logprob) => {
  const share = 100 * Math.exp(logprob);
  return share >= 0.1 ? `${share.toPrecision(3)} %` : "< 0.1 %";
};

const visible = (text) => (text === "" ? "(nothing)" : text.replaceAll("\n", "↵").replaceAll("\t", "⇥"));

export function shaded(tokens) {
  const spans = tokens.map(([text, logprob], i) => {
    const span = element("span", { class: "token", tabindex: i ? "-1" : "0" }, text);
    span.style.backgroundColor = `rgb(var(--shade), ${(STRONGEST * (1 - Math.exp(logprob))).toFixed(3)})`;
    return span;
  });
  const box = element("div", {
    class: "tokens",
    role: "group",
    "aria-label": "Answer, token by token: the arrow keys go from one to the next",
  });
  box.append(...spans);
  const at = (event) => spans.indexOf(event.target);
  box.addEventListener("pointerover", (event) => at(event) >= 0 && show(event.target, tokens[at(event)]));
  box.addEventListener("pointerout", (event) => event.target !== document.activeElement && hide());
  box.addEventListener("focusin", (event) => at(event) >= 0 && show(event.target, tokens[at(event)]));
  box.addEventListener("focusout", hide);
  box.addEventListener("pointerdown", (event) => at(event) >= 0 && go(spans, at(event)));
  box.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (step && spans[at(event) + step]) {
      event.preventDefault();
      go(spans, at(event) + step);
    } else if (event.key === "Escape") {
      hide();
    }
  });
  return box;
}

// One of them is in the order of the Tab key.
function go(spans, i) {
  for (const span of spans) span.tabIndex = -1;
  spans[i].tabIndex = 0;
  spans[i].focus();
}

function row(text, logprob, chosen) {
  const bar = element("span", { class: "bar" });
  bar.style.width = `${100 * Math.exp(logprob)}%`;
  const piece = element("span", { class: "piece" }, visible(text));
  return element("div", { class: chosen ? "chosen" : "" }, bar, piece, element("span", { class: "share" }, percent(logprob)));
}

function show(span, [text, logprob, others]) {
  hide();
  const tip = byId("tip");
  tip.replaceChildren(row(text, logprob, true), ...others.map(([other, share]) => row(other, share, false)));
  tip.hidden = false;
  span.classList.add("open");
  span.setAttribute("aria-describedby", "tip");
  const [place] = span.getClientRects();
  const { width, height } = tip.getBoundingClientRect();
  const left = Math.min(Math.max(place.left, 8), innerWidth - width - 8);
  const below = place.bottom + 6;
  const composer = byId("composer").getBoundingClientRect().top;
  tip.style.left = `${left}px`;
  tip.style.top = `${below + height < composer ? below : place.top - height - 6}px`;
}

export function hide() {
  byId("tip").hidden = true;
  for (const span of document.querySelectorAll(".token.open")) {
    span.classList.remove("open");
    span.removeAttribute("aria-describedby");
  }
}
