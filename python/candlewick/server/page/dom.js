// Elements without markup in strings: what a model writes is never read as HTML.

export const byId = (id) => document.getElementById(id);

// element("a", { class: "b", onclick: f }, "text", child)
export function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [attribute, value] of Object.entries(attributes)) {
    if (attribute.startsWith("on")) made.addEventListener(attribute.slice(2), value);
    else if (value === true) made.setAttribute(attribute, "");
    else if (value !== false && value !== null) made.setAttribute(attribute, value);
  }
  made.append(...children);
  return made;
}

const SHAPES = {
  edit: "M4 20h4L19 9l-4-4L4 16v4ZM13.5 6.5l4 4",
  again: "M20 11a8 8 0 1 0-2.3 6.2M20 5v6h-6",
  copy: "M9 9h10v11H9zM5 15V4h10",
  done: "m5 12 5 5L19 7",
  before: "m14 6-6 6 6 6",
  after: "m10 6 6 6-6 6",
};

export function icon(name) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("aria-hidden", "true");
  const path = document.createElementNS(svg.namespaceURI, "path");
  path.setAttribute("d", SHAPES[name]);
  svg.append(path);
  return svg;
}

export function button(name, label, onclick, attributes = {}) {
  return element("button", { type: "button", class: "quiet", title: label, "aria-label": label, onclick, ...attributes }, icon(name));
}

// A field as high as its text.
export function grow(textarea) {
  textarea.style.height = "auto";
  textarea.style.height = `${textarea.scrollHeight}px`;
}
