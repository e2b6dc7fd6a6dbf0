"""Draws the training curves of engines/*.training.json to docs/images/training.png.

pip install -e '.[bench]'
python engines/training/draw_curves.py
"""

from __future__ import annotations

import json
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

ENGINES = Path(__file__).parents[1]


def main() -> None:
    records = sorted(ENGINES.glob("*.training.json"), reverse=True)
    figure, panels = plt.subplots(1, len(records), figsize=(5 * len(records), 3.4), squeeze=False)
    for panel, path in zip(panels[0], records, strict=True):
        record = json.loads(path.read_text())
        curve, examples, before = [], [], 0.0
        for part in (*record.get("before", []), record):  # one that went on from another, on other scenes
            if curve:
                panel.axvline(before, color="grey", linestyle=":")
            curve += part["curve"]
            examples += [before + p["examples"] / 1000 for p in part["curve"]]
            before = examples[-1]
        panel.plot(examples, [p["loss"] for p in curve], label="training")
        panel.plot(examples, [p["held_loss"] for p in curve], label="scenes never trained on")
        panel.set(title=record["model"], xlabel="thousand examples", ylabel="loss")
        panel.set_ylim(top=max(p["held_loss"] for p in curve[len(examples) // 20 :]) * 1.1)
        panel.grid(alpha=0.3)
        panel.legend()
    figure.tight_layout()
    figure.savefig(ENGINES.parent / "docs" / "images" / "training.png", dpi=110)


if __name__ == "__main__":
    main()
