"""Made-up pictures of a model's own size, so that nothing resizes them: as PNG files, which cnxc is
calibrated with, and as the float32 tensors [C,H,W] that evaluation makes of them."""

import array
import math
import random
import struct
import zlib

MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def rows(number, height, width):
    """Picture `number`: rows of interleaved RGB bytes, waves of three colours under noise."""
    draw = random.Random(number)
    waves = [(draw.uniform(0.01, 0.2), draw.uniform(0.01, 0.2), draw.uniform(0, 6),
              draw.uniform(20, 90), draw.uniform(80, 170)) for _ in range(3)]
    noise = bytes(draw.randrange(31) for _ in range(4093))
    for y in range(height):
        row = bytearray()
        for x in range(width):
            for c, (fy, fx, phase, height_, middle) in enumerate(waves):
                v = middle + height_ * math.sin(fy * y + fx * x + phase)
                row.append(min(255, max(0, int(v) + noise[(y * width + x) * 3 % 4093 + c - 2])))
        yield bytes(row)


def write_png(path, number, height, width):
    def chunk(kind, data):
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    data = b"".join(b"\0" + row for row in rows(number, height, width))
    with open(path, "wb") as f:
        f.write(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">2I5B", width, height, 8, 2, 0, 0, 0))
                + chunk(b"IDAT", zlib.compress(data, 1)) + chunk(b"IEND", b""))


def tensor(number, height, width):
    """The picture's values, [C,H,W]."""
    pixels = b"".join(rows(number, height, width))
    out = array.array("f")
    for c in range(3):
        values = [(v / 255 - MEAN[c]) / DEVIATION[c] for v in range(256)]
        out.extend(values[v] for v in pixels[c::3])
    return out
