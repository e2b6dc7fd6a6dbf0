// Changes of a label map as runs: first index, number of voxels, label before and after (docs/workspace.md).

const RUN = 12; // bytes

// The runs of a stroke. `before` maps the index of each changed voxel to its label before.
export function encoded(before, labels) {
  const at = Uint32Array.from(before.keys()).sort();
  const runs = [];
  let run;
  for (const index of at) {
    const [was, is] = [before.get(index), labels[index]];
    if (was === is) continue;
    if (run && index === run.first + run.count && was === run.was && is === run.is) run.count++;
    else runs.push((run = { first: index, count: 1, was, is }));
  }
  const view = new DataView(new ArrayBuffer(runs.length * RUN));
  runs.forEach(({ first, count, was, is }, k) => {
    view.setUint32(k * RUN, first, true);
    view.setUint32(k * RUN + 4, count, true);
    view.setUint16(k * RUN + 8, was, true);
    view.setUint16(k * RUN + 10, is, true);
  });
  return view.buffer;
}

// Writes a delta into the labels; returns the labels that it touched.
export function apply(payload, labels) {
  const view = new DataView(payload);
  const touched = new Set();
  for (let k = 0; k + RUN <= payload.byteLength; k += RUN) {
    const first = view.getUint32(k, true);
    const [was, is] = [view.getUint16(k + 8, true), view.getUint16(k + 10, true)];
    labels.fill(is, first, first + view.getUint32(k + 4, true));
    touched.add(was).add(is);
  }
  return touched;
}
