"""A self-contained HTML page that plays episodes: pictures inside, a slider, the reward of every step."""

from __future__ import annotations

import base64
import html
import io
import json
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from jaxrl_seq.run.render import Clip

_COLUMNS = 20  # pictures a row of the sheet that holds an episode

_PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>@title@</title><style>
body { margin: 0; font: 15px/1.5 system-ui, sans-serif; color: #212529; background: #f8f9fa; }
main { max-width: 720px; margin: 0 auto; padding: 28px 20px; }
h1 { font-size: 21px; margin: 0 0 14px; } canvas { width: 100%; max-height: 58vh; object-fit: contain;
  image-rendering: pixelated; background: #fff; border: 1px solid #dee2e6; border-radius: 8px; }
input { flex: 1; } button, select { font: inherit; padding: 3px 12px; }
.row { display: flex; gap: 12px; align-items: center; margin: 12px 0; }
svg { width: 100%; height: 70px; display: block; }
.said { font-variant-numeric: tabular-nums; } .soft { color: #6c757d; font-size: 13px; }
</style></head><body><main><h1>@title@</h1><canvas id="view"></canvas>
<div class="row"><button id="play">Pause</button><input id="at" type="range" min="0" value="0" aria-label="step">
<select id="episode" aria-label="episode"></select></div>
<div class="said" id="said"></div><svg id="plot" preserveAspectRatio="none"></svg>
<div class="soft">Reward of every step. Space plays, arrows step.</div></main><script>
const episodes = @episodes@, fps = @fps@;
const view = document.getElementById("view"), at = document.getElementById("at");
const said = document.getElementById("said"), plot = document.getElementById("plot");
const button = document.getElementById("play");
const choice = document.getElementById("episode"); let now, sheet, playing = true;
episodes.forEach((e, i) => choice.add(new Option(`episode ${i + 1}: return ${e.return.toPrecision(3)}`, i)));
function open(i) { now = episodes[i]; sheet = new Image(); sheet.onload = show; sheet.src = now.sheet;
  view.width = now.width; view.height = now.height; at.max = now.rewards.length; at.value = 0; bars(); }
function bars() { const n = now.rewards.length, top = Math.max(1e-9, ...now.rewards.map(Math.abs));
  plot.setAttribute("viewBox", `0 -35 ${n} 70`);
  plot.innerHTML = now.rewards.map((r, t) => `<rect x="${t}" width=".9" y="${r > 0 ? -34 * r / top : 0}" ` +
    `height="${34 * Math.abs(r) / top}" fill="${r < 0 ? "#cd3830" : "#2563eb"}"></rect>`).join("") +
    `<rect id="cursor" y="-35" width=".25" height="70" fill="#212529"></rect>`; }
function show() { const t = +at.value, c = now.columns, w = now.width, h = now.height, g = view.getContext("2d");
  g.drawImage(sheet, (t % c) * w, Math.floor(t / c) * h, w, h, 0, 0, w, h);
  const r = t ? now.rewards[t - 1] : 0, sum = now.rewards.slice(0, t).reduce((a, b) => a + b, 0);
  said.textContent = `step ${t} of ${now.rewards.length}   reward ${r.toPrecision(3)}   return ${sum.toPrecision(3)}`;
  document.getElementById("cursor").setAttribute("x", t); }
function toggle() { playing = !playing; button.textContent = playing ? "Pause" : "Play"; }
function move(d) { at.value = +at.value + d; show(); }
button.onclick = toggle;
at.oninput = () => { if (playing) toggle(); show(); };
choice.onchange = () => open(+choice.value);
document.onkeydown = e => { if (e.key === " ") { toggle(); e.preventDefault(); }
  if (e.target !== at && e.key === "ArrowRight") move(1); if (e.target !== at && e.key === "ArrowLeft") move(-1); };
setInterval(() => { if (playing) { at.value = +at.value >= +at.max ? 0 : +at.value + 1; show(); } }, 1000 / fps);
open(0);
</script></body></html>
"""


def player_page(title: str, clips: list[Clip], fps: float) -> str:
    """The page, with every episode's pictures in one PNG sheet each."""
    text = json.dumps([_episode(clip) for clip in clips]).replace("</", "<\\/")
    page = _PAGE.replace("@title@", html.escape(title)).replace("@fps@", f"{fps:g}")
    return page.replace("@episodes@", text)


def _episode(clip: Clip) -> dict[str, Any]:
    height, width = clip.frames.shape[1:3]
    return {
        "sheet": "data:image/png;base64," + base64.b64encode(_sheet(clip.frames)).decode(),
        "columns": min(_COLUMNS, len(clip.frames)),
        "height": height,
        "width": width,
        "rewards": [round(float(reward), 6) for reward in clip.rewards],
        "return": round(float(clip.rewards.astype(np.float64).sum()), 6),
    }


def _sheet(frames: np.ndarray) -> bytes:
    """All frames in rows of `_COLUMNS`, as a PNG."""
    from PIL import Image

    columns = min(_COLUMNS, len(frames))
    rows = -(-len(frames) // columns)
    number, height, width, _ = frames.shape
    padded = np.concatenate([frames, np.zeros((rows * columns - number, height, width, 3), np.uint8)])
    sheet = padded.reshape(rows, columns, height, width, 3).transpose(0, 2, 1, 3, 4)
    file = io.BytesIO()
    Image.fromarray(sheet.reshape(rows * height, columns * width, 3)).save(file, "PNG", optimize=True)
    return file.getvalue()
