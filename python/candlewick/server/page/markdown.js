// The little of Markdown that models write: headings, lists, quotes, code, bold, italic. Line breaks stay.

import { element } from "./dom.js";

const INLINE = /(`+)(.+?)\1|\*\*(?=\S)(.+?)(?<=\S)\*\*|(?<![\w*])\*(?=\S)([^*\n]+?)(?<=\S)\*(?![\w*])/gs;

function inline(text) {
  const parts = [];
  let at = 0;
  for (const found of text.matchAll(INLINE)) {
    const [all, , code, bold, italic] = found;
    parts.push(text.slice(at, found.index));
    if (code !== undefined) parts.push(element("code", {}, code));
    else if (bold !== undefined) parts.push(element("strong", {}, ...inline(bold)));
    else parts.push(element("em", {}, ...inline(italic)));
    at = found.index + all.length;
  }
  parts.push(text.slice(at));
  return parts;
}

const BLOCKS = [
  [/^#{1,6}\s+(.*)/, (lines) => element("h2", {}, ...inline(lines[0])), true],
  [/^\s*[-*+]\s+(.*)/, (lines) => element("ul", {}, ...lines.map((line) => element("li", {}, ...inline(line))))],
  [/^\s*\d+[.)]\s+(.*)/, (lines, first) => {
    const start = parseInt(first, 10);
    return element("ol", { start }, ...lines.map((line) => element("li", {}, ...inline(line))));
  }],
  [/^>\s?(.*)/, (lines) => element("blockquote", {}, element("p", {}, ...inline(lines.join("\n"))))],
];

export function markdown(text) {
  const lines = text.split("\n");
  const blocks = [];
  let words = [];
  const flush = () => {
    if (words.length) blocks.push(element("p", {}, ...inline(words.join("\n"))));
    words = [];
  };
  for (let i = 0; i < lines.length; ) {
    const fence = /^\s*(```+|~~~+)/.exec(lines[i]);
    if (fence) {
      flush();
      let end = i + 1;
      while (end < lines.length && !lines[end].trim().startsWith(fence[1])) end++;
      const code = element("code", {}, lines.slice(i + 1, end).join("\n"));
      blocks.push(element("pre", { tabindex: "0" }, code));
      i = end + 1;
      continue;
    }
    const [pattern, make, single] = BLOCKS.find(([pattern]) => pattern.test(lines[i])) ?? [];
    if (pattern) {
      flush();
      const first = lines[i];
      const items = [];
      do items.push(pattern.exec(lines[i++])[1]);
      while (!single && i < lines.length && pattern.test(lines[i]));
      blocks.push(make(items, first));
      continue;
    }
    if (lines[i].trim()) words.push(lines[i]);
    else flush();
    i++;
  }
  flush();
  return blocks;
}
