"""New images of an unseen domain: python examples/first_images.py IMAGES new.png [MODEL]

The paper's method (arXiv 2310.09213). IMAGES is a folder of 8 pictures or more, MODEL a diffusers
DDPM folder; each new image is shown beside the nearest given one.
"""

import sys
from pathlib import Path

from unseen_core.basics.images import to_float, to_uint8
from unseen_core.basics.rng import Streams
from unseen_core.basics.sheets import pair_sheet
from unseen_core.diffusion.denoiser import load_model
from unseen_core.diffusion.transport import invert
from unseen_core.judging.novelty import nearest_pictures
from unseen_core.laws.geometry import Envelope, StateJudge
from unseen_core.laws.references import References
from unseen_core.sources import SourceConfig, load
from unseen_core.starts import Geometric, StartContext, denoise_starts

(folder, out, *rest), LEVEL = sys.argv[1:], 300
model = load_model(Path(rest[0] if rest else "data/embedded/natural32"))
source = load(SourceConfig("folder", "mine", path=folder, size=model.shape[-1]))
grid = model.schedule.grid(15, LEVEL)  # 15 network calls from the clean image up to LEVEL

# 1. Invert: each image goes up the deterministic trajectory of the frozen model.
clean = to_float(source.images)
latents = References.of(invert(model, clean, grid))
# 2. Fit: radius, distances and angles of the latents, each judged by all others.
order = Streams(0, "order", source.ids).choose(len(source), len(source))
envelope = Envelope.calibrate(StateJudge.of(latents), order)
# 3. Sample: blends of four latents, put on their shell and kept if their geometry fits.
blends = Geometric(parents=4, alpha=20.0, guide=0.1)  # alpha: parents of nearly equal weight
streams = Streams(0, "new", [str(i) for i in range(16)])
starts = blends.draw(StartContext(model.schedule, LEVEL, latents, {}, envelope), streams)
# 4. Denoise: the trajectory down, guided a little by the local score of each blend's parents.
new = denoise_starts(blends, model, starts, grid, images=References.of(clean), streams=streams)
_, rows = nearest_pictures(images := to_uint8(new), source.images)
pair_sheet(images, source.images[rows], columns=4).save(out)
