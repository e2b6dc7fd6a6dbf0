// The connection, on a thread of its own (a worker): a picture's megabytes come in many pieces, and on the page's thread
// each piece would wait until the page has drawn.

const DEAD_MS = 3000; // the server speaks five times a second; after such a silence no end of the connection will be told
// By it the server tells a screen that comes back, while its old stream is not yet known to be dead, from one more screen.
const screen = crypto.getRandomValues(new Uint32Array(4)).join("-");
let socket, address, pause = 250, heardAt = 0;

function open() {
  const mine = (socket = new WebSocket(`${address}&screen=${screen}`));
  heardAt = performance.now();
  mine.binaryType = "arraybuffer";
  mine.onopen = () => postMessage({ open: true });
  mine.onmessage = ({ data }) => {
    pause = 250;
    heardAt = performance.now();
    postMessage({ data, received: performance.timeOrigin + heardAt }, [data]); // handed over, not copied
  };
  mine.onclose = () => end(mine);
}

function end(ended) {
  if (ended !== socket) return; // another has taken its place
  ended.onopen = ended.onmessage = ended.onclose = null;
  ended.close();
  socket = null;
  postMessage({ open: false });
  setTimeout(open, pause);
  pause = Math.min(pause * 1.5, 2000);
}

setInterval(() => socket && performance.now() - heardAt > DEAD_MS && end(socket), 500);

onmessage = ({ data }) => {
  if (data.address) {
    address = data.address;
    open();
  } else if (socket?.readyState === WebSocket.OPEN) socket.send(data.text);
};
