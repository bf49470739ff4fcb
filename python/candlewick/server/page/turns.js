// How a turn looks: its words, and below them what can be done with it.

import { button, element, grow } from "./dom.js";
import { markdown } from "./markdown.js";
import { shaded } from "./shading.js";

// `does` has what the buttons do: edit(turn, text), again(turn), choose(turn).
export class TurnView {
  constructor(turn, conversation, does) {
    this.turn = turn;
    this.conversation = conversation;
    this.does = does;
    this.words = element("div", { class: "words" });
    this.foot = element("div", { class: "foot" });
    const who = element("span", { class: "hidden" }, turn.role === "user" ? "You: " : "The model: ");
    this.item = element("li", { class: `turn ${turn.role}` }, who, this.words, this.foot);
  }

  // Draws the turn as it is now.
  draw(shade) {
    const { turn } = this;
    this.item.classList.toggle("running", turn.running);
    if (turn.role === "user") {
      this.words.textContent = turn.text;
    } else {
      const byToken = shade && turn.tokens.length > 0;
      this.words.replaceChildren(...(byToken ? [shaded(turn.tokens)] : markdown(turn.text)));
    }
    if (turn.error) this.words.append(element("p", { class: "error" }, turn.error));
    this.foot.replaceChildren(...(turn.running ? [] : this.actions()));
  }

  actions() {
    const { turn, does } = this;
    const beside = this.conversation.beside(turn);
    const i = beside.indexOf(turn);
    const actions = [];
    if (beside.length > 1) {
      const choose = (j) => () => does.choose(beside[j]);
      actions.push(
        button("before", "The version before", choose(i - 1), { disabled: i === 0 }),
        element("span", { class: "which" }, `${i + 1} / ${beside.length}`),
        button("after", "The version after", choose(i + 1), { disabled: i === beside.length - 1 }),
      );
    }
    if (turn.role === "user") {
      actions.push(button("edit", "Edit and ask again", () => this.edit()));
    } else {
      actions.push(
        button("copy", "Copy", (event) => this.copy(event.currentTarget)),
        button("again", "Answer again", () => does.again(turn)),
      );
    }
    if (turn.facts) actions.push(element("span", { class: "facts" }, turn.facts));
    return actions;
  }

  async copy(pressed) {
    await navigator.clipboard.writeText(this.turn.text);
    const done = button("done", "Copied", () => {});
    pressed.replaceWith(done);
    done.focus();
    setTimeout(() => done.isConnected && done.replaceWith(pressed), 1500);
  }

  edit() {
    const field = element("textarea", { rows: 1, "aria-label": "Your message" });
    field.value = this.turn.text;
    const leave = () => {
      this.item.classList.remove("editing");
      form.replaceWith(this.words, this.foot);
      this.foot.querySelector("button:last-of-type").focus();
    };
    const form = element(
      "form",
      {
        class: "edit",
        onsubmit: (event) => {
          event.preventDefault();
          if (field.value.trim()) this.does.edit(this.turn, field.value);
        },
        onkeydown: (event) => {
          if (event.key === "Escape") leave();
          if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
            event.preventDefault();
            form.requestSubmit();
          }
        },
        oninput: () => grow(field),
      },
      field,
      element(
        "div",
        {},
        element("button", { type: "button", class: "quiet", onclick: leave }, "Cancel"),
        element("button", { type: "submit", class: "strong" }, "Ask again"),
      ),
    );
    this.item.classList.add("editing");
    this.foot.remove();
    this.words.replaceWith(form);
    grow(field);
    field.focus();
  }
}
