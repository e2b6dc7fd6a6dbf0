"""Why a registration is not tracking, in the words that a person reads; docs/troubleshooting.md says what to do."""

# Searching
NOTHING_FITS = "nothing in the picture fits the CT: is it this patient, and is the target in the picture?"
MIRRORED = "the picture looks mirrored: it fits the CT as its mirror image; is the C-arm's picture flipped?"
BOTH_HANDS = "the picture and its mirror image fit the CT alike: turn the C-arm to a less symmetric view"
LITTLE = "the CT shows so little bone that a wrong pose may fit it too: give a CT of a larger field"
UNCHANGED = "the picture does not change: it is not live"

# Found, and doubtful
SETTLING = "the pose is still settling"
UNCOMPARED = "the pose has not been compared with the whole field"
NO_TIME = "the pose is old: there was no time to measure it"
LATE_KEYFRAME = "the pose is old: the patches at the new pose were not rendered in time"
FAINT = "the picture fits the CT poorly"
DISAGREES = "the whole field does not agree with the CT"
UNSURE = "bones and chest lie otherwise than in the CT: the target bone may be turned by more than is allowed"
EDGES_BESIDE = "the bones' edges in the picture lie {mm:.0f} mm beside those of the CT"  # mm at the bone
MOVED = "the patient has moved by about {mm:.1f} mm, and not by breathing: check the registration"

# Lost
POOR = "no pose near the last one fits the picture"
TURNED_LEFT_RIGHT = "the picture was mirrored, left for right"
TURNED_UPSIDE_DOWN = "the picture was turned upside down and mirrored"
TURNED_HALF = "the picture was turned by 180 degrees"
CHANGED = "the picture has changed at once: the C-arm was moved, or it shows something else"
