"""A decoder of the four learned codecs in NumPy alone: docs/format.md, in its order and numbers.

    python docs/decoder.py photo.lic ckpts/Hyperprior/epoch_199_lmbda_0.013.safetensors decoded.png

It shares no line with the package `models`: a file that both read alike proves the description.
It is also the shortest complete account of a learned codec. Arrays are (rows, columns, channels).
"""

import argparse
import hashlib
import io
import sys
import zlib
from bisect import bisect_right
from pathlib import Path
from struct import pack, unpack

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

FACTORIZED, HYPERPRIOR = "Factorized", "Hyperprior"
JOINT, CHECKERBOARD = "JointAutoregressiveHierarchicalPriors", "CheckerboardAutogressive"
MODELS = (FACTORIZED, HYPERPRIOR, JOINT, CHECKERBOARD)
LIMIT, LEAKY = 2.0**23, 10486 / 2**20  # of activations and latents; the slope of LeakyReLU
LENGTHS = [*range(0, 65 * 258111, 258111), 2**24]  # the uniform table of 65 entries
THRESHOLDS = np.round(4096 * 0.11 * (256 / 0.11) ** ((np.arange(63) + 0.5) / 63))
GRID, INSIDE = 6, 12  # fraction bits: of latents and means, and of all inside the networks


class Refused(Exception):
    """The file or the checkpoint is not what it should be."""


def check(fine: bool, sentence: str) -> None:
    """Refuse with a sentence unless all is fine."""
    if not fine:
        raise Refused(sentence)


def container(data: bytes, max_pixels: int):
    """1. The container: model, digest, gain, height, width, blocks down and across, streams."""
    file = io.BytesIO(data)

    def take(count: int) -> bytes:
        part = file.read(count)
        check(len(part) == count, "The file is cut short.")
        return part

    def varint() -> int:
        part = take(1)
        while part[-1] > 127:
            part += take(1)
            check(len(part) <= 5, "A number in the header is too long.")
        return sum((byte & 127) << 7 * k for k, byte in enumerate(part))

    magic, version, code, metric, lmbda, digest = unpack("<3s3Bf8s", take(18))
    check(magic == b"LIC", "This is not a file of these codecs.")
    check(version in (1, 2), f"The format's version is {version}, not 1 or 2.")
    check(
        1 <= code <= 4 and metric <= 1 and 0 <= lmbda < np.inf, "Unknown model, metric or lambda."
    )
    gain = varint() if version == 2 else 4096  # section 9
    check(256 <= gain <= 65536, "The gain is not 1/16 to 16.")
    model, height, width = MODELS[code - 1], varint(), varint()
    check(1 <= min(height, width) <= max(height, width) <= 2**20, "A side is not 1 to 2^20 pixels.")
    side, count = (16, 1) if model == FACTORIZED else (64, 2)
    rows, columns = -(-height // side), -(-width // side)
    check(rows * columns * side**2 <= max_pixels, "The image is too large.")
    check(take(1)[0] == count, f"{model} has another number of streams.")
    lengths = [varint() for _ in range(count)]
    check(sum(lengths) <= 64**3 * -(-height // 64) * -(-width // 64), "The streams are too long.")
    streams = [take(length) for length in lengths]
    check(pack("<I", zlib.crc32(data[:-4])) == take(4), "The checksum is wrong: damaged.")
    check(not file.read(), "The file is longer than it says.")
    return model, digest, gain, height, width, rows, columns, streams


def array(arrays: dict, name: str, *shape: int) -> np.ndarray:
    """2. The checkpoint: one of its arrays, which must have this shape (-1: any)."""
    found = arrays.get(name, np.empty(0))
    fits = found.size and len(shape) == found.ndim and np.isfinite(found).all()
    fits = fits and all(n in (-1, size) for n, size in zip(shape, found.shape, strict=True))
    check(fits, f"The checkpoint's {name} is missing, of another shape or not finite.")
    return found.astype(np.float64)


def convolution(arrays: dict, name: str, inputs: int, outputs: int, kernel: int, transposed=False):
    """Weight (out, in, k, k) and bias (out)."""
    shape = (inputs, outputs) if transposed else (outputs, inputs)
    weight, bias = array(arrays, f"{name}.weight", *shape, kernel, kernel), f"{name}.bias"
    return weight.swapaxes(0, 1) if transposed else weight, array(arrays, bias, outputs)


class Tables:
    """The frequency tables of one latent: for each, the sums of all frequencies before an entry."""

    def __init__(self, arrays: dict, latent: str, count: int):
        sizes = {"frequencies": -1, "lengths": count, "first": count, "offsets": count}
        fields = [array(arrays, f"tables.{latent}.{name}", n) for name, n in sizes.items()]
        frequencies, lengths, self.first, self.offsets = self.integers = fields
        fine = lengths.min() >= 2 and lengths.max() <= 16386 and frequencies.min() >= 1
        check(fine and lengths.sum() == len(frequencies), "The tables are inconsistent.")
        rows = np.split(frequencies.astype(int), np.cumsum(lengths[:-1].astype(int)))
        self.sums = [[0, *np.cumsum(row).tolist()] for row in rows]
        check(all(sums[-1] == 2**24 for sums in self.sums), "A table does not sum to 2^24.")


class Layer:
    """3. Weights to integers: weight (out, in, ...), bias, shift; slope: of what follows."""

    def __init__(self, weight: np.ndarray, bias: np.ndarray, slope, before=INSIDE, after=INSIDE):
        axes = tuple(range(1, weight.ndim))
        s = np.clip(15 - np.frexp(np.abs(weight).max(axes))[1], -40, 24)
        large = np.ones_like(s)
        while large.any():
            self.shift = s + before - after
            self.weight = np.round(np.ldexp(weight, np.expand_dims(s, axes)))
            half = np.where(self.shift >= 1, np.ldexp(1.0, self.shift - 1), 0)
            self.bias = np.round(np.ldexp(bias, s + before)) + half
            large = np.abs(self.bias) + LIMIT * np.abs(self.weight).sum(axes) >= 2**53
            s = s - large
        self.integers, self.slope = (self.weight, self.bias, self.shift), slope

    def __call__(self, sums: np.ndarray) -> np.ndarray:
        """Sums (..., out) to activations."""
        x = np.clip(np.floor(np.ldexp(sums + self.bias, -self.shift)), -LIMIT, LIMIT)
        return np.where(x >= 0, x, np.floor(x * self.slope))


def convolved(x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """4. The networks: x (h, w, in) with weight (out, in, 3, 3), centred, to (h, w, out)."""
    height, width, inputs = x.shape
    padded = np.pad(x, ((1, 1), (1, 1), (0, 0)))
    seen = [padded[i : i + height, j : j + width] for i, j in np.ndindex(3, 3)]
    return np.concatenate(seen, 2) @ weight.transpose(2, 3, 1, 0).reshape(9 * inputs, -1)


def transposed(x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """x (h, w, in) with weight (out, in, 5, 5): (2h, 2w, out); i gives to 2i - 2 to 2i + 2."""
    height, width, _ = x.shape
    out = np.zeros((2 * height + 3, 2 * width + 3, len(weight)), x.dtype)
    for i, j in np.ndindex(5, 5):
        part = x @ weight[:, :, i, j].T.copy()  # copied, or NumPy would not use BLAS
        out[i : i + 2 * height : 2, j : j + 2 * width : 2] += part
    return out[2:-1, 2:-1]


class Codec:
    """The integers that a model codes with; `digest` tells whether a file was written with them."""

    def __init__(self, model: str, arrays: dict):
        M, N, *_ = array(arrays, "g_s.0.weight", -1, -1, 5, 5).shape
        self.model, self.M, self.N, self.h_s, self.context = model, M, N, [], []
        self.tables = [Tables(arrays, "y", M if model == FACTORIZED else 64)]
        if model != FACTORIZED:
            self.tables.append(Tables(arrays, "z", N))
            a, b, c = (N, N, M) if model == HYPERPRIOR else (M, 3 * M // 2, 2 * M)
            slope, last = (0, 0) if model == HYPERPRIOR else (LEAKY, 1)
            self.h_s = [Layer(*convolution(arrays, "h_s.0", N, a, 5, True), slope, before=GRID)]
            self.h_s.append(Layer(*convolution(arrays, "h_s.2", a, b, 5, True), slope))
            self.h_s.append(Layer(*convolution(arrays, "h_s.4", b, c, 3), last))
        if model in (JOINT, CHECKERBOARD):
            self.taps = [*np.ndindex(5, 5)][slice(12) if model == JOINT else slice(1, None, 2)]
            weight, bias = convolution(arrays, "context_prediction", M, 2 * M, 5)
            weight = np.stack([weight[:, :, i, j] for i, j in self.taps], 1)  # (2M, taps, M)
            self.context = [Layer(weight, bias, 1, before=GRID)]
            widths, after = (4 * M, 10 * M // 3, 8 * M // 3, 2 * M), np.repeat([INSIDE, GRID], M)
            for k, end in enumerate([(LEAKY,), (LEAKY,), (1, INSIDE, after)]):
                parts = convolution(arrays, f"entropy_parameters.{2 * k}", *widths[k : k + 2], 1)
                self.context.append(Layer(*parts, *end))
        hashed = hashlib.sha256(f"{model} {N} {M}".encode())  # section 5
        for part in (*self.tables, *self.context, *self.h_s):
            hashed.update(b"".join(integers.astype("<i8").tobytes() for integers in part.integers))
        self.digest = hashed.digest()[:8]

    def features(self, z_hat: np.ndarray) -> np.ndarray:
        """h_s: z_hat (h/4, w/4, N) to the scales (h, w, M), or to psi (h, w, 2M)."""
        first, second, last = self.h_s
        x = second(transposed(first(transposed(z_hat, first.weight)), second.weight))
        return last(convolved(x, last.weight))

    def scales_and_means(self, features: np.ndarray, y_hat: np.ndarray, rows, columns, step: int):
        """Each (n, M), at n positions; y_hat (h + 4, w + 4, M) has a border of zeros."""
        if self.model == HYPERPRIOR:
            return features[rows, columns], np.zeros((len(rows), self.M))
        (context, *layers), x = self.context, np.zeros((len(rows), 2 * self.M))
        if self.model == JOINT or step > 0:
            seen = np.concatenate([y_hat[rows + i, columns + j] for i, j in self.taps], 1)
            x = context(seen @ context.weight.reshape(2 * self.M, -1).T)
        x = np.concatenate([features[rows, columns], x], 1)
        for layer in layers:
            x = layer(x @ layer.weight[:, :, 0, 0].T)
        return x[:, : self.M], x[:, self.M :]


def read_latent(stream: bytes, tables: Tables, shape, gain=4096, codec=None, features=None):
    """5 and 6. Symbols and latents (h, w, channels) of a stream; without features by channel."""
    (height, width, channels), coder = shape, RangeDecoder(stream)
    symbols, latents = np.zeros(shape, int), np.zeros((height + 4, width + 4, channels))
    i, j = np.indices((height, width))
    time = {JOINT: j + 3 * i, CHECKERBOARD: (i + j) % 2}.get(codec and codec.model, 0 * i)
    for step in range(time.max() + 1):
        here = np.nonzero(time == step)  # in raster order
        indexes, means = np.tile(np.arange(channels), (len(here[0]), 1)), tables.offsets
        if features is not None:
            scales, means = codec.scales_and_means(features, latents, *here, step)
            indexes = np.searchsorted(THRESHOLDS * 4096, scales * gain)  # how many are below
        symbols[here] = coder.symbols(tables, indexes.ravel()).reshape(indexes.shape)
        coded = 64.0 * symbols[here] + (means * gain + 2048) // 4096
        latents[2:-2, 2:-2][here] = np.clip((coded * 8192 + gain) // (2 * gain), -LIMIT, LIMIT)
    check(next(coder.words, None) is None and coder.D < 2**33 - 1, "A stream is too long.")
    return symbols, latents[2:-2, 2:-2]


class RangeDecoder:
    """7. The range coder: R and D, and the words still to come."""

    def __init__(self, stream: bytes):
        check(len(stream) % 4 == 0, "A stream is not made of whole words.")
        self.words = iter(np.frombuffer(stream, "<u4").tolist())
        self.R, self.D = 2**64 - 1, next(self.words, 0) << 32 | next(self.words, 0)

    def entry(self, sums) -> int:
        """The next entry of a table, given by the sums before its entries."""
        u = self.R >> 24
        v = self.D // u
        check(v < 2**24, "A stream is damaged.")
        entry = bisect_right(sums, v) - 1
        self.D -= u * sums[entry]
        self.R = u * (sums[entry + 1] - sums[entry])
        if self.R < 2**32:
            self.R, self.D = self.R << 32, self.D << 32 | next(self.words, 0)
        return entry

    def symbols(self, tables: Tables, indexes: np.ndarray) -> np.ndarray:
        """8. One symbol for each table (n), (n): table by table, then the values of the escaped."""
        symbols, escaped = tables.first[indexes].astype(int), []
        sums = [tables.sums[table] for table in indexes]
        for at in np.argsort(indexes, kind="stable").tolist():
            entry = self.entry(sums[at])
            symbols[at] += entry
            if entry == len(sums[at]) - 2:
                escaped.append(at)
        lengths = [(at, self.entry(LENGTHS)) for at in sorted(escaped)]
        folded = {at: 1 << n >> 1 for at, n in lengths}  # the highest bit
        for shift in (0, 16, 32, 48):
            for at, n in lengths:
                if n - 1 > shift:
                    uniform = range(0, 2**24 + 1, 2**24 >> min(n - 1 - shift, 16))
                    folded[at] |= self.entry(uniform) << shift
        for at, f in folded.items():
            symbols[at] = f >> 1 ^ -(f & 1)  # 0, 1, 2, 3, ... to 0, -1, 1, -2, ...
        return symbols


def scale(tables: Tables, channel: int, gain: int) -> None:
    """9. Gain: change the table of a channel of Factorized to that at the gain."""
    first, offset = int(tables.first[channel]), int(tables.offsets[channel])
    mass, start = np.diff(tables.sums[channel])[:-1], (offset + 64 * first - 32) * gain
    n, step, offset = len(mass), 64 * gain, (offset * gain + 2048) // 4096
    ends = [(end // 4096 - offset + 32) // 64 for end in (start, start + n * step - 1)]
    low, high = np.clip(ends, -8192, 8192).tolist()
    left, right = np.append(mass[:1], mass), np.append(mass, mass[-1:])
    slopes = np.minimum(np.sqrt(left * right).astype(int), 3 * np.minimum(left, right))
    below, c = np.cumsum(mass) - mass, min(max(-first, 0), n - 1)
    half = min(max(2**23 - below[c], 0), mass[c])
    rest = mass[c] - half
    peak = min(mass[c] ** 2 // max(*slopes[c : c + 2], 1), 6 * min(half, rest))
    whole = np.array([2 * np.arange(n), np.full(n, 2), below, mass, slopes[:-1], slopes[1:]])
    one = 2 * c, 1, below[c], half, min(slopes[c], 6 * half), peak
    two = 2 * c + 1, 1, below[c] + half, rest, peak, min(slopes[c + 1], 6 * rest)
    pieces = np.column_stack([whole[:, :c], one, two, whole[:, c + 1 :]])
    edges = 64 * np.arange(low, high + 2) + offset - 32
    inside = 2 * np.clip(edges * 4096 - start, 0, n * step)
    at = np.searchsorted(pieces[0] * step, inside, side="right") - 1
    begin, width, below, mass, *ends = pieces[:, at]
    rise, fall = (slope * width // 2 for slope in ends)
    t = (inside - begin * step) * 2**20 // (width * step)
    cubic = (rise + fall - 2 * mass) * t // 2**20 + 3 * mass - 2 * rise - fall
    counts = np.maximum.accumulate(below + (cubic * t // 2**20 + rise) * t // 2**20)
    mass = np.append(np.diff(counts), 2**24 - counts[-1] + counts[0])
    row = 1 + mass * (2**24 - len(mass)) // 2**24
    row[np.argmax(row)] += 2**24 - row.sum()
    tables.first[channel], tables.sums[channel] = low, [0, *np.cumsum(row).tolist()]


def synthesis(arrays: dict, y_hat: np.ndarray) -> np.ndarray:
    """10. From y_hat (h, w, M) in 1/64 to an image (16h, 16w, 3) of floats."""
    x, N = (y_hat / 64).astype(np.float32), array(arrays, "g_s.0.bias", -1).size
    for k, outputs in enumerate((N, N, N, 3)):
        weight, bias = convolution(arrays, f"g_s.{2 * k}", x.shape[2], outputs, 5, True)
        x = transposed(x, weight.astype(np.float32)) + bias.astype(np.float32)
        if k < 3:
            beta = array(arrays, f"g_s.{2 * k + 1}.beta", N)
            gamma = array(arrays, f"g_s.{2 * k + 1}.gamma", N, N)
            beta = np.maximum(beta, (1e-6 + 2.0**-36) ** 0.5) ** 2 - 2.0**-36
            gamma = np.maximum(gamma, 2.0**-18) ** 2 - 2.0**-36
            x *= np.sqrt(x * x @ gamma.T.astype(np.float32) + beta.astype(np.float32))
    return x


def decode(data: bytes, path: Path, max_pixels: int = 2**27):
    """A file and its checkpoint to all symbols, (n), y_hat (M, h, w), and levels (H, W, 3)."""
    model, digest, gain, height, width, rows, columns, streams = container(data, max_pixels)
    codec = Codec(model, arrays := load_file(path))
    check(codec.digest == digest, f"{path} is not the checkpoint of this file.")
    (y_tables, *_), shape, features, symbols = codec.tables, (rows, columns, codec.M), None, []
    if model != FACTORIZED:
        z, z_hat = read_latent(streams[0], codec.tables[1], (rows, columns, codec.N))
        symbols, shape, features = [z], (4 * rows, 4 * columns, codec.M), codec.features(z_hat)
    elif gain != 4096:
        for channel in range(codec.M):
            scale(y_tables, channel, gain)
    y, y_hat = read_latent(streams[-1], y_tables, shape, gain, codec, features)
    with np.errstate(all="ignore"):
        image = synthesis(arrays, y_hat)[:height, :width]
    check(not np.isnan(image).any(), "The streams describe no image.")
    levels = np.round(np.clip(image, 0, 1) * 255).astype(np.uint8)
    flat = np.concatenate([latent.transpose(2, 0, 1).ravel() for latent in (*symbols, y)])
    return flat, y_hat.transpose(2, 0, 1).astype(int), levels


def png(levels: np.ndarray) -> bytes:
    """(H, W, 3) of 8 bits as a PNG file."""
    rows = np.pad(levels.reshape(len(levels), -1), ((0, 0), (1, 0))).tobytes()  # after a filter, 0
    header, out = pack(">IIBBBBB", *levels.shape[1::-1], 8, 2, 0, 0, 0), b"\x89PNG\r\n\x1a\n"
    for kind, body in ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")):
        out += pack(">I", len(body)) + kind + body + pack(">I", zlib.crc32(kind + body))
    return out


def main() -> None:
    """The program."""
    parser = argparse.ArgumentParser(description="Decode FILE, of CHECKPOINT, to the PNG IMAGE.")
    for name in ("file", "checkpoint", "image"):
        parser.add_argument(name, type=Path, metavar=name.upper())
    parser.add_argument("--digest", action="store_true", help="print SHA-256 of symbols and y_hat")
    flags = parser.parse_args()
    try:
        symbols, y_hat, levels = decode(flags.file.read_bytes(), flags.checkpoint)
        flags.image.write_bytes(png(levels))
    except (Refused, SafetensorError, OSError) as error:
        sys.exit(str(error))
    for name, integers in {"symbols": symbols, "y_hat": y_hat}.items() if flags.digest else ():
        print(name, hashlib.sha256(integers.astype("<i8").tobytes()).hexdigest())


if __name__ == "__main__":
    main()
