"""What a pipeline has before it is forked (tests/warm.py): modules alone."""

import fluoronav.cli
import fluoronav.stream.pipeline.service  # noqa: F401
