"""Reads a page of the display at a moment in which its overlay is in time.

On a busy computer an overlay may be late: it is drawn faded and dashed, and cards say its age. The next that comes in
time is waited for, unless the screen is frozen or none comes for three seconds.
"""

_READ = """new Promise((done) => {
  const { state, stats } = fluoronav;
  const read = () => done(%s);
  const isNew = (at) => performance.now() - at < 100;
  const look = () => {
    const inTime = stats.strength === 1 && state.held && isNew(state.held.received) && isNew(state.newestAt);
    // A frame later cards and layers are of what has come.
    requestAnimationFrame(state.frozen || inTime ? read : look);
  };
  look();
  setTimeout(read, 3000);
})"""


def read_in_time(page, expression: str):
    """Evaluates an expression in the page."""
    return page.evaluate(_READ % expression)
