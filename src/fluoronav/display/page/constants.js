// Every number that somebody chose, with its unit. Two of the connection's are in link.js: a worker imports nothing here.

// What is old (app.js)
export const LOST_MS = 450; // silence after which what is shown is called old
export const UNKNOWN_MS = 3000; // silence of health, which comes once a second, after which its state is unknown
export const HELD_MS = 300; // a pose that was measured longer ago is not called tracked
export const HELD_STEP_MS = 50; // ages are written in these steps
export const STAMP_STEP_MS = 100; // and those under the numbers in these
export const OLD_FRAMES = 2; // an overlay that is older than the picture by more frames is faded
export const OLD_OVERLAY_OPACITY = 0.35;

// Pictures and their overlays (app.js)
export const MAX_OVERLAYS = 32; // kept for pictures that come later
export const MAX_WAITING_PICTURES = 8;
export const WAIT_FOR_OVERLAY_MS = 120; // the longest that a picture waits for its overlay
export const NEW_COUNT_FRAMES = 1000; // a number that is lower by so many is of a grabber that was started again
export const WINDOW_OVERLAY_MS = 3000; // without overlays for so long the window no longer follows the last outlines
export const MAX_LATENCIES = 20000; // kept for benches
export const DRAWN_EVERY_MS = 250; // between two reports to the server of how long drawing takes

// Refreshes (refreshing.js)
export const IDLE_EVERY_MS = 50; // while nothing comes; ages are written in such steps
export const HIDDEN_EVERY_MS = 100; // of a page that is behind another

// Fewer pictures (thinned.js)
export const THINNED_SPAN_MS = 2000; // over which pictures and overlays are counted
export const MIN_COUNTED = 10; // overlays in this time, from which on pictures are compared with them
export const FEW_PICTURES = 0.6; // of the overlays: where fewer pictures are shown, the page says so

// Texts that disappear (app.js)
export const NOTE_MS = 4000;
export const REFUSAL_MS = 10000;
export const RESTART_NOTE_MS = 20000;

// The pipeline's clock (heading.js)
export const CLOCK_SET_MS = 2000; // a health message that seems later than this has another clock, not a longer way

// Recordings (recording.js)
export const RECORDING_BEGINS_MS = 3000; // after the request; health comes once a second

// Checking the registration (register.js)
export const LANDMARKS = 3;
export const LANDMARK_MARGIN = 0.08; // of the picture's side: a point nearer to the edge is not asked for
export const LANDMARK_APART = 0.06; // of the picture's width: points nearer to one another are taken for one
export const LARGE_RESIDUAL_MM = 3; // chosen: more than a finger errs at this size

// Buttons (bar.js)
export const HOLD_MS = 1000; // chosen: longer than any touch by mistake

// Alarms (alarms.js), by IEC 60601-1-8: starts of the pulses and their length in s, pause between bursts in s, pitch in Hz.
// High: two bursts of five.
export const BURST = {
  high: { pulses: [0, 0.2, 0.4, 0.75, 0.95, 1.5, 1.7, 1.9, 2.25, 2.45], length: 0.12, every: 5, hertz: 660 },
  medium: { pulses: [0, 0.3, 0.6], length: 0.2, every: 8, hertz: 520 },
  low: { pulses: [0, 0.35], length: 0.2, every: 20, hertz: 390 },
};
export const SOUND_PAUSE_S = 120;
export const MAX_ROWS = 2; // alarms in the strip; the number of the others is shown
export const LATCH_MS = 3000; // an alarm of the stream is shown for so long at least: long enough to be read
export const RESOUND_MS = 10000; // an alarm that comes again within this time begins no new burst
export const SAME_TARGET_MS = 400; // reaction time: a press that follows a change sooner was meant for what stood there before
export const MAX_LOG_LINES = 500;
export const LOG_GROUP_MS = 60000; // alarms of one kind with shorter pauses are one line of the log

// Values that are accepted (checked.js)
export const MAX_NUMBER = 1e6; // mm, px, degrees or ms: more is no measurement
export const MAX_AGE_MS = 1e12;
export const MAX_TIME_NS = 4e18; // since 1970: in 2096

// Connection (stream.js)
export const REPLY_MS = 1500; // after which the page says that nothing has answered; the server gives the pipeline less

// Stepping back (history.js)
export const HISTORY_EVERY_MS = 100;
export const MAX_MOMENTS = 300; // half a minute
export const HALVED_ABOVE_PX = 700; // longer sides are kept at half their size

// What is shown of the picture (view.js)
export const MAX_ZOOM = 8;
export const WHEEL_ZOOM = 0.0015; // of the logarithm of the enlargement, for a CSS pixel of the wheel's way
export const DOUBLE_TAP_ZOOM = 2.5, DOUBLE_TAP_MS = 350, DOUBLE_TAP_PX = 40;
export const MOVED_PX = 6; // a shorter way of a finger is a touch
export const LOUPE_ZOOM = 4;
export const LOUPE_CLEAR = 0.42; // of the picture's side: the magnifier is not in a corner to which a tip is nearer
export const UNITS_PER_REM = 16; // style.css: a root unit is 1/67.5 of the height of the screen
export const SOFTWARE_LAYER_PX = 1080; // width of what is drawn over the picture where there is no GPU: more takes too long

// Drawing over the picture (layers.js, annotations.js, meanings.js). A unit is 1/1080 of the height of a screen.
// Colours are told apart, and from one another's simulation in protanopia, deuteranopia and tritanopia, by 13 or more
// (CIEDE2000): tests/display/test_colours.py. Green is for clear alone.
export const SHAFT_COLOUR = "#ffffff";
export const PLAN_COLOUR = "#a8d8ff";
export const BONE_COLOUR = "#9aa3a9";
export const GUARDED_COLOUR = "#f03cff"; // nerves and vessels
export const NO_GO_COLOUR = "#f03cff"; // hatched
export const LEVEL_COLOUR = { danger: "#ff2d20", caution: "#ffd23f", clear: "#1fbf73" };
export const CASING = "rgb(0 0 0 / 90%)"; // the dark border of lines and letters
export const HELD_OPACITY = 0.45; // of what is drawn at an old pose
export const SCALE_BAR_MM = [1, 2, 5, 10, 20, 50, 100];
export const MIN_SCALE_BAR_UNITS = 120;
export const ELLIPSE_95 = 2.45; // radius of the 95 % ellipse of a normal error in the plane, in sigmas
export const HATCH_UNITS = 18; // from line to line
export const MIN_ARROW = 0.3; // of a direction's length in the picture: a shorter one points at the viewer
export const LESS_OBLIQUE = 0.42; // of a direction's length along an edge: less than 25 degrees is not told
// Heights of letters in units. 43 units have capitals of 30 at least, which are 16 minutes of arc at 2 m on a 27-inch screen.
export const TEXT_UNITS = { distance: 46, direction: 58, target: 46, level: 34 };
export const LABEL_CLEAR_UNITS = 50; // between a label and a tip

// Numbers (numbers.js)
export const RING_MM = [1, 2, 5]; // of the bull's-eye
export const BULLSEYE_MM = 6; // radius of the bull's-eye
export const FAR_LATERAL_MM = 2;
export const FULL_DEPTH_MM = 80; // full length of the depth bar
export const SHOWN_CONTACT_S = 10; // later contacts are not written

// The picture's window (picture.js, curve.js, window.js)
export const WINDOW_EVERY_MS = 150;
export const WINDOW_SETTLES_MS = 500; // time constant of following
export const MAX_WINDOW_STEP = 0.25; // of the way, so that it does not flicker
// Black and white lie at quantiles of what is under the outlines of bone ("bones") or in the whole field ("field"), plus
// margins in widths. `even`: the part of the coarse differences that is subtracted. Bone: soft tissue is brighter than bone,
// metal darker. Metal: bone is nearly white. All chosen by eye on the demo's frames.
export const PRESET_WINDOWS = {
  bone: { black: ["bones", 0.03], white: ["bones", 0.97], below: 0.08, above: 0.2, even: 0.75 },
  soft: { black: ["bones", 0.03], white: ["field", 0.98], below: 0.05, above: 0.05, even: 0.3 },
  metal: { black: ["bones", 0.02], white: ["bones", 0.6], below: 1.2, above: 0.1, even: 0.6 },
};
export const GRID_SIDE = 32; // cells of the coarse brightness
export const GRID_SMOOTH_CELLS = 1.5; // sigma: 5 % of the picture, a third of a vertebra of the spine
export const SAMPLES_PER_CELL = 3; // to a side
export const OUTSIDE_CELL = 0.25; // of a cell's samples that lie inside the field, below which it is outside
export const SHOULDER = 0.7; // of the window: what is brighter is drawn together
export const SOFT_PART = 0.3; // of the counts under the bones that are added before the logarithm
export const CURVE_CHANGE = 0.3; // of `soft`, by which dark or soft must change before the curve does
export const MIN_WINDOW = 0.05; // of full scale: a narrower window would show noise alone
export const MIN_SAMPLES = 60;
export const SAMPLES_PER_SIDE = 24; // of the box around an outline, and of the inner field
export const FIELD_SAMPLES_PER_SIDE = 48; // of the picture
export const INNER_RADIUS = 0.36; // of the inner field, in sides of the picture
export const CORNER_SIDE = 0.04; // of a corner that is tested for lying outside the field, in sides of the picture
export const DARK_CORNER = 0.25; // of the bright part of the inner field: a darker corner lies outside the field

// The 3D view (scene.js, space.js, volume.js)
export const BEAM_LENGTH = 1.35; // in distances from the source to the target
export const SHAFT_MM = 120, MIN_SHAFT_RADIUS_MM = 0.8; // of a drawn instrument
export const SPACE_EVERY_MS = 66, MAX_SPACE_PAUSE_MS = 2000;
export const SPACE_TIME_FRACTION = 0.1; // where the GPU is a program on the same cores, the 3D view gets this part of the time
export const SPACE_RETRY_MS = 5000;
export const DRR_SIDE_PX = 512;
export const FLICKER_MS = 400; // between the DRR and the frame (controls.js)
export const SPACE_MAX_PX = 900; // longer side of slices where there is no GPU
export const SLICE_FIELD_MM = 90;
export const AHEAD_MM = 10; // of the tip: the probe's eye looks there, too
export const BONE_SHADE = "#aab3b9", TARGET_SHADE = "#f2f5f7"; // of surfaces
export const OTHER_VIEW_DEG = 30; // between two beams: a smaller turn is the same view
export const OTHER_VIEW_PX = 768, SNAPSHOT_EVERY_MS = 1000;
export const SLICE_WINDOW_HU = [-200, 900];
export const DRR_FROM_HU = 120; // the DRR sums what is denser
