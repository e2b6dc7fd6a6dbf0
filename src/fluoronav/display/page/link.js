// The connection, in a worker: a picture's megabytes come in many pieces, and on the page's thread each piece would wait
// until the page has drawn.

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
    postMessage({ data, received: performance.timeOrigin + heardAt }, [data]); // transferred, not copied
  };
  mine.onclose = () => end(mine);
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
  if (data.address) {
    address = data.address;
    open();
  } else if (socket?.readyState === WebSocket.OPEN) socket.send(data.text);
};
