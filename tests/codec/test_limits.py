"""What a small file may cost: memory in proportion to the pixels it claims, up to the limit."""

import subprocess
import sys

from tests.programs import ROOT

CLAIM = """
import sys
from dataclasses import replace
import torch
torch.set_num_threads(1)
from models.errors import StreamError
from tests.fuzz.damage import put_together, take_apart
from tests.helpers import codec, image, peak_memory
model = codec(sys.argv[1])
fields = take_apart(model.compress(image(64, 64))[0])
model.decompress([put_together(fields)])
streams = tuple(bytes(4) for _ in fields.streams)  # decodes to something, or to a refusal
for side in (512, 1024):
    before = peak_memory()
    claim = replace(fields, height=side, width=side, streams=streams, lengths=(4,) * len(streams))
    data = put_together(claim)
    try:
        model.decompress([data])
    except StreamError:
        pass
    print(len(data), (peak_memory() - before) / side**2)
"""


def test_memory_is_in_proportion_to_the_claimed_pixels():
    command = [sys.executable, "-c", CLAIM, "CheckerboardAutogressive"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    for line in done.stdout.splitlines():
        size, bytes_per_pixel = map(float, line.split())
        assert size < 60 and bytes_per_pixel < 500
    assert len(done.stdout.splitlines()) == 2
