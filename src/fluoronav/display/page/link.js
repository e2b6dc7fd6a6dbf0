// The connection, in a worker: a picture's megabytes come in many pieces, and on the page's thread each piece would wait
// until the page has drawn.

// A page that is kept waiting for the processor must not work through what has grown old meanwhile: until it is ready for
// more, so many of the newest of each topic are kept for it, as the server does for a socket that is full, and all others.
const MOST = { overlay: 6, picture: 1, link: 1, health: 1, alarms: 1, pace: 1 };
const DEAD_MS = 3000; // the server sends five times a second; after this silence the connection is dead
const FIRST_PAUSE_MS = 250, LONGEST_PAUSE_MS = 2000; // between two attempts to connect
// Tells the server whether a new stream is of a screen that comes back, or of one more screen.
const screen = crypto.getRandomValues(new Uint32Array(4)).join("-");
let socket, address, pause = FIRST_PAUSE_MS, heardAt = 0;

function open() {
  const mine = (socket = new WebSocket(`${address}&screen=${screen}`));
  heardAt = performance.now();
  mine.binaryType = "arraybuffer";
  mine.onopen = () => postMessage({ open: true });
  mine.onmessage = ({ data }) => {
    pause = FIRST_PAUSE_MS;
    heardAt = performance.now();
    keep({ data, received: performance.timeOrigin + heardAt });
  };
  mine.onclose = () => end(mine);
}

let waiting = [], ready = true; // messages for the page, the oldest first

function keep(message) {
  message.topic = topicOf(message.data);
  const most = MOST[message.topic];
  waiting.push(message);
  if (most && waiting.filter((m) => m.topic === message.topic).length > most)
    waiting.splice(waiting.findIndex((m) => m.topic === message.topic), 1);
  hand();
}

function hand() {
  if (!ready || !waiting.length) return;
  // Pictures last: what is small does not wait for one.
  const some = [...waiting.filter((m) => m.topic !== "picture"), ...waiting.filter((m) => m.topic === "picture")];
  [waiting, ready] = [[], false];
  postMessage({ some }, some.map((m) => m.data)); // transferred, not copied
}

// The topic is the first thing in a message's head (display/viewer.py).
function topicOf(data) {
  const begin = new Uint8Array(data, 4, Math.min(32, data.byteLength - 4));
  return /^\{"topic":"(\w+)"/.exec(String.fromCharCode(...begin))?.[1] ?? "";
}

function end(ended) {
  if (ended !== socket) return; // a newer one has replaced it
  ended.onopen = ended.onmessage = ended.onclose = null;
  ended.close();
  socket = null;
  postMessage({ open: false });
  setTimeout(open, pause);
  pause = Math.min(pause * 1.5, LONGEST_PAUSE_MS);
}

setInterval(() => socket && performance.now() - heardAt > DEAD_MS && end(socket), 500);

onmessage = ({ data }) => {
  if (data.ready) {
    ready = true;
    hand();
  } else if (data.address) {
    address = data.address;
    open();
  } else if (socket?.readyState === WebSocket.OPEN) socket.send(data.text);
};
