"""New images of an unseen domain: python examples/first_images.py IMAGES new.png [MODEL]

The paper's method (arXiv 2310.09213). IMAGES is a folder of 8 pictures or more, MODEL a diffusers
DDPM folder; each new image is shown beside the nearest given one.
"""

import sys
from pathlib import Path

import torch

from unseen_core.basics.images import to_float, to_uint8
from unseen_core.basics.rng import Streams
from unseen_core.basics.sheets import pair_sheet
from unseen_core.diffusion.denoiser import load_model
from unseen_core.diffusion.transport import denoise, invert
from unseen_core.judging.novelty import nearest_pictures
from unseen_core.laws.geometry import Envelope, StateJudge
from unseen_core.laws.references import References
from unseen_core.sources import SourceConfig, load
from unseen_core.starts import Geometric, StartContext

(folder, out, *rest), LEVEL, CALLS, COUNT = sys.argv[1:], 300, 15, 16
torch.set_num_threads(1)  # threads only wait for each other in a network this small
model = load_model(Path(rest[0] if rest else "data/embedded/natural32"))
source = load(SourceConfig("folder", "mine", path=folder, size=model.shape[-1]))
grid = model.schedule.grid(CALLS, LEVEL)  # levels from the clean image, 0, up to LEVEL

# 1. Invert: each image goes up the deterministic trajectory of the frozen model.
latents = References.of(invert(model, to_float(source.images), grid))
# 2. Fit: radius, distances and angles of the latents, each judged by all others.
order = Streams(0, "order", source.ids).choose(len(source), len(source))
envelope = Envelope.calibrate(StateJudge.of(latents), order)
# 3. Sample: blends of two latents, put on their shell and kept if their geometry fits.
context = StartContext(model.schedule, LEVEL, latents, {}, envelope)
starts = Geometric(parents=2).draw(context, Streams(0, "new", [str(i) for i in range(COUNT)]))
# 4. Denoise: the same trajectory down.
images = to_uint8(denoise(model, starts.x, grid))
_, rows = nearest_pictures(images, source.images)
pair_sheet(images, source.images[rows], columns=4).save(out)
