// A head and its payload, as the server packs them (display/packing.py).
export function unpacked(buffer) {
  const length = new DataView(buffer).getUint32(0, true);
  return { head: JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, length))), buffer, offset: 4 + length };
}
