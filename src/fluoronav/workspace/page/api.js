// Requests to the server (docs/workspace.md has the table).

const key = new URLSearchParams(location.search).get("key") ?? "";

// A refusal: `message` is the server's text for people; `status` and `body` are of the answer.
export class Refusal extends Error {
  constructor(status, body) {
    super(body.error ?? `the server answered ${status}`);
    [this.status, this.body] = [status, body];
  }
}

async function answer(path, options = {}) {
  let response;
  try {
    response = await fetch(`/api${path}`, { ...options, headers: { "X-Key": key, ...options.headers } });
  } catch {
    throw new Refusal(0, { error: "The server cannot be reached. What was drawn is sent as soon as it can be: leave this page open." });
  }
  if (response.ok) return response;
  const text = await response.text();
  let body;
  try {
    body = JSON.parse(text);
  } catch {
    body = { error: text.slice(0, 300) || `the server answered ${response.status}` };
  }
  throw new Refusal(response.status, body);
}

const sent = (body) => ({ method: "POST", body: JSON.stringify(body), headers: { "Content-Type": "application/json" } });

export const get = async (path) => (await answer(path)).json();
export const post = async (path, body = {}) => (await answer(path, sent(body))).json();
export const remove = async (path) => (await answer(path, { method: "DELETE" })).json();
export const packed = async (path, body) => unpacked(await (await answer(path, body ? sent(body) : {})).arrayBuffer());
export const upload = async (path, file) => (await answer(path, { method: "PUT", body: file })).json();
export const binary = async (path, bytes) => (await answer(path, { method: "POST", body: bytes })).json();
export const fileAddress = (path) => `/api${path}?key=${encodeURIComponent(key)}`;

// A packed answer: length of the head, the head as JSON, the payload.
export function unpacked(buffer) {
  const length = new DataView(buffer).getUint32(0, true);
  const head = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, length)));
  const begin = 4 + Math.ceil(length / 4) * 4;
  return { head, payload: buffer.slice(begin) };
}

// Voxels, with the share that has come in as `progress(share)`; `bytes` is what is expected.
export async function voxels(path, bytes, progress = () => {}) {
  const response = await answer(path);
  const whole = new Uint8Array(bytes);
  const reader = response.body.getReader();
  let at = 0;
  for (;;) {
    const { done, value } = await reader.read();
    if (done) break;
    if (at + value.length > bytes) throw new Error(`The server sent more than the ${bytes} bytes of the scan.`);
    whole.set(value, at);
    at += value.length;
    progress(at / bytes);
  }
  if (at !== bytes) throw new Error(`The server sent ${at} of ${bytes} bytes: reload the page.`);
  return { buffer: whole.buffer, headers: response.headers };
}

// The events of a case, for as long as the page lives; connects again by itself.
export function events(name, heard) {
  const scheme = location.protocol === "https:" ? "wss" : "ws";
  let socket, ended = false;
  const open = () => {
    socket = new WebSocket(`${scheme}://${location.host}/api/cases/${encodeURIComponent(name)}/events?key=${encodeURIComponent(key)}`);
    socket.onmessage = ({ data }) => heard(JSON.parse(data));
    socket.onclose = () => ended || setTimeout(open, 1000);
  };
  open();
  return () => {
    ended = true;
    socket.close();
  };
}
