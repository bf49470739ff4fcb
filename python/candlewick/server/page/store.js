// What is kept in the browser: the conversation with all its branches, and the settings.
//
// A conversation is a tree of turns. Each turn has a parent (0: none), and `chosen` says which child of a turn is shown.

const CHAT = "candlewick.chat";
const SETTINGS = "candlewick.settings";
const KEY = "candlewick.key";

const read = (name, otherwise) => {
  try {
    return { ...otherwise, ...JSON.parse(localStorage.getItem(name)) };
  } catch {
    return otherwise;
  }
};

const EMPTY = { turns: {}, chosen: {}, last: 0 };

export class Conversation {
  constructor() {
    Object.assign(this, read(CHAT, structuredClone(EMPTY)));
    for (const turn of Object.values(this.turns)) {
      // The page was left while it was being written.
      turn.running = false;
    }
  }

  // Adds a turn and shows it.
  add(parent, role, text) {
    const id = ++this.last;
    const turn = { id, parent, role, text, tokens: [], facts: null, error: null, running: false };
    this.turns[id] = turn;
    this.chosen[parent] = id;
    this.save();
    return turn;
  }

  // What is shown, from the first turn to the last.
  path() {
    const path = [];
    for (let turn = this.turns[this.chosen[0]]; turn; turn = this.turns[this.chosen[turn.id]]) {
      path.push(turn);
    }
    return path;
  }

  // The turns up to and with this one.
  upTo(turn) {
    return turn ? [...this.upTo(this.turns[turn.parent]), turn] : [];
  }

  // The turns in the place of this one, in the order in which they came.
  beside(turn) {
    return Object.values(this.turns).filter((other) => other.parent === turn.parent);
  }

  choose(turn) {
    this.chosen[turn.parent] = turn.id;
    this.save();
  }

  clear() {
    Object.assign(this, structuredClone(EMPTY));
    this.save();
  }

  save() {
    const { turns, chosen, last } = this;
    try {
      localStorage.setItem(CHAT, JSON.stringify({ turns, chosen, last }));
    } catch {
      // The browser's share is full. Probabilities are most of it, and the oldest will be missed least.
      const heavy = Object.values(turns).find((turn) => turn.tokens.length && !turn.running);
      if (heavy) {
        heavy.tokens = [];
        this.save();
      }
    }
  }
}

export const settings = read(SETTINGS, {});

export function saveSettings() {
  localStorage.setItem(SETTINGS, JSON.stringify(settings));
}

// A secret: for this tab, as long as it is open.
export const key = {
  get: () => sessionStorage.getItem(KEY) ?? "",
  set: (value) => sessionStorage.setItem(KEY, value),
};
