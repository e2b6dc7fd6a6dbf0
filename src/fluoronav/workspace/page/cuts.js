// The three cuts through the CT, drawn by Cornerstone3D.

import * as cornerstone from "./cornerstone.js";
import { along, dot, minus } from "./grid.js";
import { Overlay } from "./overlay.js";

const { cache, Enums, imageLoader, init, RenderingEngine, ToolEnums, ToolGroupManager, utilities, volumeLoader } = cornerstone;
export const NAMES = ["axial", "sagittal", "coronal"];
export const WINDOWS = { Bone: [400, 1800], "Soft tissue": [40, 400], Lung: [-600, 1500] }; // centre, width, HU
const ENGINE = "workspace", TOOLS = "cuts";

// On a computer without a graphics processor the browser imitates one; cuts computed by Cornerstone3D on the processor are
// then four times as fast.
function imitated() {
  const gl = document.createElement("canvas").getContext("webgl2");
  const info = gl?.getExtension("WEBGL_debug_renderer_info");
  const name = (gl && info && gl.getParameter(info.UNMASKED_RENDERER_WEBGL)) ?? "";
  gl?.getExtension("WEBGL_lose_context")?.loseContext();
  return !gl || /swiftshader|llvmpipe|software|basic render/i.test(name);
}

let engine;
export function started() {
  if (engine) return engine;
  const renderBackend = imitated() ? Enums.RenderBackends.CPU : Enums.RenderBackends.GPU;
  init({ rendering: { planar: { renderBackend, cpuVolume: { useViewportSamplingForLinear: true } } } });
  cornerstone.initTools();
  for (const tool of ["PanTool", "ZoomTool", "WindowLevelTool", "TrackballRotateTool"]) cornerstone.addTool(cornerstone[tool]);
  imageLoader.registerImageLoader("scan", (id) => ({ promise: Promise.resolve(cache.getImage(id)) }));
  engine = new RenderingEngine(ENGINE);
  return engine;
}

function volumeOf(id, grid, hu, frameOfReference) {
  const direction = grid.axes.flat();
  const volume = volumeLoader.createLocalVolume(id, {
    dimensions: grid.size, spacing: grid.spacing, origin: grid.origin, direction, scalarData: hu,
    metadata: {
      BitsAllocated: 16, BitsStored: 16, SamplesPerPixel: 1, HighBit: 15, PhotometricInterpretation: "MONOCHROME2", PixelRepresentation: 1,
      Modality: "CT", ImageOrientationPatient: direction.slice(0, 6), PixelSpacing: [grid.spacing[1], grid.spacing[0]],
      FrameOfReferenceUID: frameOfReference, Columns: grid.size[0], Rows: grid.size[1], voiLut: [],
    },
  });
  volume.loadStatus = { loaded: true };
  volume.load = () => {};
  return volume;
}

export class Cuts {
  // `scene` is what the overlays draw; `boxes` the elements by the cut's name.
  constructor(boxes, grid, hu, frameOfReference, scene) {
    Object.assign(this, { grid, scene });
    cache.purgeCache();
    const id = `scan:${crypto.randomUUID()}`;
    const { imageIds } = volumeOf(id, grid, hu, frameOfReference);
    utilities.genericViewportDisplaySetMetadataProvider.add(id, { imageIds, volumeId: id, kind: "planar" });
    this.id = id;
    this.cuts = NAMES.map((name) => ({ ...grid.cut(name), box: boxes[name] }));
    // A point of the slice that is shown.
    for (const cut of this.cuts) cut.plane = () => grid.point([0, 1, 2].map((a) => (a === cut.normal ? cut.slice : 0)));
    scene.cutNames = Object.fromEntries(this.cuts.map((cut) => [cut.normal, cut.name]));
  }

  async show() {
    const engine = started();
    ToolGroupManager.destroyToolGroup(TOOLS);
    this.tools = ToolGroupManager.createToolGroup(TOOLS);
    for (const cut of this.cuts) {
      const orientation = { viewPlaneNormal: cut.towards, viewUp: cut.up };
      engine.enableElement({ viewportId: cut.name, type: Enums.ViewportType.PLANAR_NEXT, element: cut.box, defaultOptions: { orientation } });
      cut.viewport = engine.getViewport(cut.name);
      await cut.viewport.setDisplaySets({ displaySetId: this.id, options: { orientation } });
      this.tools.addViewport(cut.name, ENGINE);
      cut.overlay = new Overlay(cut, this.grid, this.scene);
      cut.box.addEventListener(Enums.Events.IMAGE_RENDERED, () => cut.overlay.draw());
      cut.box.addEventListener(Enums.Events.CAMERA_MODIFIED, () => cut.overlay.soon());
      cut.box.addEventListener(Enums.Events.VOI_MODIFIED, ({ detail }) => this.#windowFrom(cut, detail.range));
    }
    const { Secondary, Auxiliary, Primary } = ToolEnums.MouseBindings;
    const { Ctrl, Shift } = ToolEnums.KeyboardBindings;
    this.tools.addTool("Zoom", { zoomToCenter: false });
    this.tools.addTool("Pan");
    this.tools.addTool("WindowLevel");
    this.tools.setToolActive("Zoom", { bindings: [{ mouseButton: Secondary }, { numTouchPoints: 2 }] });
    this.tools.setToolActive("Pan", { bindings: [{ mouseButton: Auxiliary }, { mouseButton: Primary, modifierKey: Shift }] });
    this.tools.setToolActive("WindowLevel", { bindings: [{ mouseButton: Primary, modifierKey: Ctrl }] });
    this.setWindow(this.scene.window);
    this.setCross(this.scene.cross);
  }

  #windowFrom(from, { lower, upper }) {
    const window = [(lower + upper) / 2, upper - lower];
    if (window.some((x, k) => Math.abs(x - this.scene.window[k]) > 0.5)) this.setWindow(window, from);
  }

  setWindow([centre, width], except) {
    this.scene.window = [centre, Math.max(width, 1)];
    for (const cut of this.cuts) {
      if (cut !== except) cut.viewport.setDisplaySetPresentation(this.id, { voiRange: { lower: centre - width / 2, upper: centre + width / 2 } });
      cut.viewport.render();
    }
  }

  // Moves the cross, and with it the cuts that do not contain it any more.
  setCross(point) {
    this.scene.cross = this.grid.inside(point);
    for (const cut of this.cuts) {
      const here = Math.round(this.grid.voxel(this.scene.cross)[cut.normal]);
      if (cut.slice === here) cut.overlay?.soon();
      else this.#toSlice(cut, here);
    }
    this.scene.crossMoved?.();
  }

  #toSlice(cut, slice) {
    cut.slice = slice;
    // In the middle of the slice, where the view's own middle is: the picture does not jump.
    const { clientWidth, clientHeight } = cut.box;
    const middle = cut.viewport.canvasToWorld([clientWidth / 2, clientHeight / 2]);
    const offset = slice - this.grid.voxel(middle)[cut.normal];
    cut.viewport.setViewState({ slice: { kind: "volumePoint", sliceWorldPoint: along(middle, cut.axis, offset * cut.step) } });
    cut.viewport.render();
  }

  scroll(cut, slices) {
    const n = this.grid.size[cut.normal];
    const voxel = this.grid.voxel(this.scene.cross);
    const to = Math.min(Math.max(Math.round(voxel[cut.normal]) + slices, 0), n - 1);
    this.setCross(along(this.scene.cross, cut.axis, (to - voxel[cut.normal]) * cut.step));
  }

  // The point of a cut under a place on the screen: in the middle of the slice that is shown.
  point(cut, x, y) {
    const at = cut.viewport.canvasToWorld([x, y]);
    return along(at, cut.axis, -dot(minus(at, cut.plane()), cut.axis));
  }

  reset() {
    for (const cut of this.cuts) {
      cut.viewport.resetViewState({ resetOrientation: false, resetFlip: false });
      cut.slice = undefined;
    }
    this.setCross(this.scene.cross);
  }

  soon() {
    for (const { overlay } of this.cuts) overlay?.soon();
  }

  resize() {
    started().resize(true, true);
    this.soon();
  }

  close() {
    ToolGroupManager.destroyToolGroup(TOOLS);
    for (const cut of this.cuts) {
      started().disableElement(cut.name);
      cut.overlay?.remove();
    }
    cache.purgeCache();
  }
}
