// A user's working session on a case: the label map, and the edits on their way to the server.

import { binary, packed, post, Refusal, voxels } from "./api.js";
import { apply, encoded } from "./delta.js";

const AGAIN_AFTER_MS = 2000;

export class Session {
  // `changed(labels)` is called when voxels of these labels have changed, `moved()` when the state has, `unreachable(text)`
  // while a stroke cannot be sent.
  constructor(name, grid, { changed, moved, unreachable }) {
    Object.assign(this, { grid, changed, moved, unreachable });
    this.path = `/cases/${encodeURIComponent(name)}`;
    this.waiting = Promise.resolve(); // requests go one after the other
    this.pending = 0; // strokes that the server has not confirmed
  }

  async open({ restart = false } = {}) {
    this.state = await post(`${this.path}/session`, restart ? { restart } : {});
    await this.#loadLabels();
    this.moved();
  }

  async #loadLabels(progress) {
    const wide = this.state.dtype === "uint16";
    const { buffer } = await voxels(`${this.path}/session/labels?dtype=${wide ? "uint16" : "uint8"}`, this.grid.voxels * (wide ? 2 : 1), progress);
    this.labels = wide ? new Uint16Array(buffer) : new Uint8Array(buffer);
  }

  // A label above 255 needs the wider map before it is drawn with.
  async widen(label) {
    if (label > 255 && this.labels.BYTES_PER_ELEMENT === 1) {
      this.labels = Uint16Array.from(this.labels);
      this.changed(new Set());
    }
  }

  stroke(stroke) {
    const { before, settings } = stroke;
    if (!before.size) return Promise.resolve();
    const delta = encoded(before, this.labels);
    this.pending++;
    this.moved();
    this.changed(new Set([settings.label, ...before.values()]));
    return this.#next(async () => {
      const query = new URLSearchParams({ sequence: this.state.sequence, what: settings.tool, label: settings.label });
      try {
        this.#take(await this.#delivered(`${this.path}/session/steps?${query}`, delta));
      } catch (error) {
        // The server did not keep it, so the page must not show it.
        for (const [index, was] of before) this.labels[index] = was;
        this.changed(new Set([settings.label, ...before.values()]));
        throw error;
      } finally {
        this.pending--;
        this.moved();
      }
    });
  }

  // Sends until the server can be reached; what is sent twice counts once.
  async #delivered(path, delta) {
    for (;;) {
      try {
        return await binary(path, delta);
      } catch (error) {
        if (error.status !== 0) throw error;
        this.unreachable(error.message);
        await new Promise((done) => setTimeout(done, AGAIN_AFTER_MS));
      }
    }
  }

  undo = () => this.#change("undo");
  redo = () => this.#change("redo");
  operate = (operation, keys) => this.#change("operations", { operation, ...keys });

  // Makes a revision; where others have changed the same voxels the refusal has status 409 and `structures`.
  save = (choice = {}) => this.#change("save", choice, false);

  discard = async () => {
    await this.#next(async () => this.#take(await post(`${this.path}/session/discard`, { sequence: this.state.sequence })));
    await this.#loadLabels();
    this.changed(null);
  };

  async reload() {
    this.state = await post(`${this.path}/session`, {});
    await this.#loadLabels();
    this.changed(null);
    this.moved();
  }

  #change(verb, keys = {}, counted = true) {
    return this.#next(async () => {
      const body = counted ? { sequence: this.state.sequence, ...keys } : keys;
      const { head, payload } = await packed(`${this.path}/session/${verb}`, body);
      const touched = apply(payload, this.labels);
      this.#take(head);
      if (touched.size) this.changed(touched);
      return head;
    });
  }

  #take(state) {
    Object.assign(this.state, state);
    this.moved();
  }

  // One request after the other. Out of step (another window of the same user): the server's labels are taken.
  #next(work) {
    const mine = this.waiting.then(work).catch(async (error) => {
      if (error instanceof Refusal && error.status === 409 && "sequence" in error.body) {
        await this.reload();
        throw new Error("This case was edited in another window of yours. The page has loaded that state; the last step here was not kept.");
      }
      throw error;
    });
    this.waiting = mine.catch(() => {});
    return mine;
  }
}
