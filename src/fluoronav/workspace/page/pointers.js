// What a pointer does in a cut: moves the cross, draws, drags an end of a screw, picks a place.

import { handleAt } from "./marks.js";
import { Stroke } from "./painting.js";

// `view` is the case's view (view.js).
export function attach(view, cut) {
  const { box } = cut;
  const place = (event) => {
    const { left, top } = box.getBoundingClientRect();
    return [event.clientX - left, event.clientY - top];
  };
  const here = (event) => view.cuts.point(cut, ...place(event));
  let doing;

  box.addEventListener("contextmenu", (event) => event.preventDefault());
  box.addEventListener("wheel", (event) => {
    event.preventDefault();
    if (event.deltaY) view.cuts.scroll(cut, Math.sign(event.deltaY) * (event.altKey ? 5 : 1) * cut.onwards);
  }, { passive: false });
  box.addEventListener("dblclick", () => view.tool === "look" && view.enlarge(cut.name));
  box.addEventListener("pointerleave", () => {
    view.scene.pointer = undefined;
    cut.overlay.soon();
  });

  box.addEventListener("pointerdown", (event) => {
    if (event.button !== 0 || event.ctrlKey || event.shiftKey || !event.isPrimary) return;
    doing = begun(event);
    if (doing) box.setPointerCapture(event.pointerId);
  });

  function begun(event) {
    const end = handleAt(cut, view.plan.chosen, ...place(event));
    if (end && !view.scene.drawing) return { drag: (e) => view.plan.drag(end, here(e)), end: () => view.plan.dropped() };
    const grip = view.scene.drawing || view.asking ? undefined : view.plan.live.gripAt(cut, place(event));
    if (grip) return { drag: (e) => grip.drag(here(e), e.timeStamp), end: grip.end };
    if (event.altKey) return void view.pick(here(event));
    if (view.asking) return void view.asking(here(event), cut);
    if (view.scene.drawing) return stroke(event);
    view.cuts.setCross(here(event));
    return { drag: (e) => view.cuts.setCross(here(e)), end() {} };
  }

  function stroke(event) {
    const refusal = view.mayDraw();
    if (refusal) return void view.say(refusal);
    const drawn = new Stroke(view.grid, view.hu, view.session.labels, { ...view.scene.drawing }, cut);
    const to = (e) => {
      for (const one of e.getCoalescedEvents?.().length ? e.getCoalescedEvents() : [e]) drawn.to(here(one));
      view.timing.touched(e.timeStamp);
      view.cuts.soon();
    };
    view.drawingNow = true; // 3D waits: it would hold up the brush
    to(event);
    const end = () => {
      view.drawingNow = false;
      view.strokeEnded(drawn);
    };
    return { drag: to, end };
  }

  box.addEventListener("pointermove", (event) => {
    view.scene.pointer = { cut, point: here(event) };
    view.hovered(cut, view.scene.pointer.point);
    if (doing) doing.drag(event);
    else if (view.scene.drawing) cut.overlay.soon();
  });
  for (const name of ["pointerup", "pointercancel"])
    box.addEventListener(name, () => {
      doing?.end();
      doing = undefined;
    });
}
