// The connection, on a thread of its own (a worker): a picture's megabytes come in many pieces, and on the page's thread
// each piece would wait until the page has drawn.

let socket, pause = 250;

function open(address) {
  socket = new WebSocket(address);
  socket.binaryType = "arraybuffer";
  socket.onopen = () => postMessage({ open: true });
  socket.onmessage = ({ data }) => {
    pause = 250;
    postMessage({ data, received: performance.timeOrigin + performance.now() }, [data]); // handed over, not copied
  };
  socket.onclose = () => {
    postMessage({ open: false });
    setTimeout(() => open(address), pause);
    pause = Math.min(pause * 1.5, 2000);
  };
}

onmessage = ({ data }) => {
  if (data.address) open(data.address);
  else if (socket.readyState === WebSocket.OPEN) socket.send(data.text);
};
