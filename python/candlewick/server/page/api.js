// The server, as any client of OpenAI's API sees it.

import { key } from "./store.js";

export class ApiError extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

async function ask(path, options = {}) {
  const headers = key.get() ? { authorization: `Bearer ${key.get()}` } : {};
  let response;
  try {
    response = await fetch(path, { ...options, headers: { ...headers, ...options.headers } });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError("The server cannot be reached. It may have ended.", 0);
  }
  if (!response.ok) {
    const said = await response.json().catch(() => ({}));
    throw new ApiError(said.error?.message ?? `The server answered ${response.status}.`, response.status);
  }
  return response;
}

export async function model() {
  const list = await (await ask("v1/models")).json();
  return list.data[0];
}

// The chunks of an answer as they come.
export async function* chat(body, signal) {
  const response = await ask("v1/chat/completions", {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ ...body, stream: true, stream_options: { include_usage: true } }),
    signal,
  });
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let waiting = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) throw new ApiError("The connection ended before the answer did.", 0);
    const events = (waiting + value).split("\n\n");
    waiting = events.pop();
    for (const event of events) {
      const data = event.slice("data: ".length);
      if (data === "[DONE]") return;
      const chunk = JSON.parse(data);
      if (chunk.error) throw new ApiError(chunk.error.message, 200);
      yield chunk;
    }
  }
}
