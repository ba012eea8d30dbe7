#!/usr/bin/env python3
"""Writes tests/unit/data/images, small pictures of every kind and what Pillow makes of them, and the
seeds of the fuzzer in tests/fuzz/corpus/image.

    python3 tests/parity/make_image_fixtures.py [--vectors FOLDER]

cases.txt lists the cases, one a line:
    decode FILE CHANNELS EXPECTED.npy                            pixels, upright and converted
    preprocess FILE CHANNELS H W CROP WARP FILTER EXPECTED.npy   resized and cropped pixels
    error FILE TEXT                                              TEXT is in the message
cjpeg (libjpeg-turbo-progs) writes what Pillow cannot. With --vectors (the folder of test-vectors) vectors.txt gets a hash of the preprocessed pixels of
each of its pictures.
"""
import argparse, io, math, os, struct, subprocess, tarfile, zlib
import numpy as np
from PIL import Image, ImageOps, PngImagePlugin

OUT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "unit", "data", "images")
MODE = {1: "L", 3: "RGB", 4: "RGBA"}
FILTER = {"bicubic": Image.BICUBIC, "bilinear": Image.BILINEAR}
cases = []


def upright(im, channels):
    im = ImageOps.exif_transpose(im)
    if im.mode == "I;16":  # documented difference: the high byte, not a clip
        im = Image.fromarray((np.asarray(im) >> 8).astype(np.uint8))
    return im.convert(MODE[channels])


def preprocess(im, h, w, crop, warp, name):
    """torchvision's Resize + CenterCrop (timm's ResizeKeepRatio when h != w) on Pillow images."""
    f = FILTER[name]
    if warp:
        return im.resize((w, h), f)
    if h == w:
        size = math.floor(h / crop)
        short, long = min(im.size), max(im.size)
        new = (size, int(size * long / short))
        full = new if im.width <= im.height else new[::-1]
    else:
        th, tw = math.floor(h / crop), math.floor(w / crop)
        ratio = min(im.height / th, im.width / tw)
        full = (round(im.width / ratio), round(im.height / ratio))
    if full != im.size:
        im = im.resize(full, f)
    if im.width < w or im.height < h:
        px, py = max(w - im.width, 0), max(h - im.height, 0)
        im = ImageOps.expand(im, (px // 2, py // 2, (px + 1) // 2, (py + 1) // 2), fill=0)
    top, left = int(round((im.height - h) / 2.0)), int(round((im.width - w) / 2.0))
    return im.crop((left, top, left + w, top + h))


def pixels(im):
    a = np.asarray(im)
    return a[:, :, None] if a.ndim == 2 else a


def path(name):
    return os.path.join(OUT, name)


def save_npy(name, im):
    np.save(path(name), np.ascontiguousarray(pixels(im)))


def decode_case(name, channels=3):
    want = f"{name}.{channels}.npy"
    save_npy(want, upright(Image.open(path(name)), channels))
    cases.append(f"decode {name} {channels} {want}")


def preprocess_case(name, channels, h, w, crop, warp, filt):
    want = f"{name}.{channels}_{h}x{w}_{crop}{'_warp' if warp else ''}_{filt}.npy"
    im = upright(Image.open(path(name)), channels)
    save_npy(want, preprocess(im, h, w, crop, warp, filt))
    cases.append(f"preprocess {name} {channels} {h} {w} {crop} {int(warp)} {filt} {want}")


def picture(w, h, channels, seed):
    """Smooth colours with edges, some noise: compresses, and shows every mistake."""
    r = np.random.default_rng(seed)
    y, x = np.mgrid[0:h, 0:w] / max(w, h)
    out = np.zeros((h, w, channels))
    for k in range(channels):
        a, b, c = r.uniform(1, 6, 3)
        out[:, :, k] = 0.5 + 0.4 * np.sin(a * 3 * x + b * 2 * y + c) + 0.3 * (x * (k + 1) > y + 0.1)
    out += r.normal(0, 0.04, out.shape)
    return (np.clip(out, 0, 1) * 255).astype(np.uint8)


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(name, w, h, depth, colour, rows, extra=b"", interlace=0):
    """A PNG from packed rows: for the depths Pillow does not write."""
    raw = b"".join(b"\0" + bytes(r) for r in rows)
    with open(path(name), "wb") as f:
        f.write(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", w, h, depth, colour, 0, 0, interlace))
                + extra + chunk(b"IDAT", zlib.compress(raw, 9)) + chunk(b"IEND", b""))


def adam7(w, h, a):
    """Rows of the seven passes of an interlaced 8-bit PNG."""
    for x0, y0, dx, dy in ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)):
        part = a[y0::dy, x0::dx]
        if part.size:
            yield from (r.tobytes() for r in part)


def exif(orientation, big):
    e = ">" if big else "<"
    return b"Exif\0\0" + (b"MM\0*" if big else b"II*\0") + struct.pack(
        e + "IHHHIHHI", 8, 1, 0x0112, 3, 1, orientation, 0, 0)


def make_jpegs():
    rgb = Image.fromarray(picture(37, 23, 3, 1))
    rgb.save(path("rgb444.jpg"), quality=90, subsampling="4:4:4")
    rgb.save(path("rgb422.jpg"), quality=85, subsampling="4:2:2")
    rgb.save(path("rgb420.jpg"), quality=80, subsampling="4:2:0")
    rgb.save(path("rgb411.jpg"), quality=85, subsampling="4:1:1")
    with open(path("rgb440.jpg"), "wb") as f:  # Pillow does not write 4:4:0
        ppm = b"P6 37 23 255\n" + rgb.tobytes()
        f.write(subprocess.run(["cjpeg", "-quality", "85", "-sample", "1x2"], input=ppm, stdout=-1, check=True).stdout)
    rgb.save(path("progressive.jpg"), quality=80, progressive=True)
    rgb.save(path("restart.jpg"), quality=80, restart_marker_blocks=2)
    rgb.save(path("adobe_rgb.jpg"), quality=90, keep_rgb=True)
    Image.fromarray(picture(31, 40, 1, 2)[:, :, 0]).save(path("grey.jpg"), quality=85)
    cmyk = Image.fromarray(picture(26, 19, 4, 3), "CMYK")
    cmyk.save(path("cmyk.jpg"), quality=90)
    ycck(cmyk)
    Image.fromarray(picture(1, 1, 3, 4)).save(path("one.jpg"))
    small = Image.fromarray(picture(12, 7, 3, 5))
    for o in range(1, 9):
        small.save(path(f"exif{o}.jpg"), quality=90, exif=exif(o, big=o % 2 == 0))
    for name in ("rgb444", "rgb422", "rgb420", "rgb411", "rgb440", "progressive", "restart", "adobe_rgb", "cmyk",
                 "ycck", "grey", "one", *(f"exif{o}" for o in range(1, 9))):
        decode_case(name + ".jpg")
    for name in ("rgb420", "cmyk", "grey"):
        decode_case(name + ".jpg", 1)
    decode_case("rgb420.jpg", 4)


def ycck(im):
    """The CMYK file marked as YCCK: the decoder then converts its first three components."""
    b = io.BytesIO()
    im.save(b, "JPEG", quality=90)
    data = b.getvalue()
    at = data.find(b"Adobe\0")
    if at < 0:
        data = data[:2] + b"\xff\xee\0\x0eAdobe\0\x64\0\0\0\0\2" + data[2:]
    else:
        data = data[:at + 11] + b"\2" + data[at + 12:]
    with open(path("ycck.jpg"), "wb") as f:
        f.write(data)


def make_pngs():
    a = picture(29, 34, 4, 6)
    a[:, :8, 3] = 0
    rgb, rgba, grey = a[:, :, :3], a, a[:, :, 0]
    Image.fromarray(np.ascontiguousarray(rgb)).save(path("rgb.png"))
    Image.fromarray(rgba).save(path("rgba.png"))
    Image.fromarray(np.ascontiguousarray(grey)).save(path("grey.png"))
    Image.fromarray(np.ascontiguousarray(a[:, :, [0, 3]]), "LA").save(path("la.png"))
    Image.fromarray(np.ascontiguousarray(rgb)).quantize(16).save(path("palette.png"), bits=4)
    Image.fromarray(np.ascontiguousarray(rgb)).quantize(9).save(
        path("palette_trns.png"), transparency=bytes([0, 128, 255, 77]))
    Image.fromarray(grey > 127).save(path("bit.png"))
    wide = a[:16, :20].astype(np.uint16) * 257 ^ 0x5A
    png("grey16.png", 20, 16, 16, 0, [r.astype(">u2").tobytes() for r in wide[:, :, 0]])
    png("rgb16.png", 20, 16, 16, 2, [r.astype(">u2").tobytes() for r in wide[:, :, :3]])
    png("la16.png", 20, 16, 16, 4, [r.astype(">u2").tobytes() for r in wide[:, :, [0, 3]]])
    png("rgba16.png", 20, 16, 16, 6, [r.astype(">u2").tobytes() for r in wide])
    for depth in (2, 4):
        v = (grey[:15, :16] >> (8 - depth)).astype(np.uint8)
        per = 8 // depth
        packed = sum(v[:, i::per].astype(int) << (8 - depth * (i + 1)) for i in range(per)).astype(np.uint8)
        png(f"grey{depth}.png", 16, 15, depth, 0, [r.tobytes() for r in packed])
    png("interlaced.png", 29, 34, 8, 2, adam7(29, 34, rgb), interlace=1)
    png("trns_rgb.png", 20, 16, 8, 2, [r.tobytes() for r in rgb[:16, :20]],
        chunk(b"tRNS", struct.pack(">HHH", *(int(v) for v in rgb[3, 5]))))
    png("exif6.png", 20, 16, 8, 2, [r.tobytes() for r in rgb[:16, :20]], chunk(b"eXIf", exif(6, True)[6:]))
    meta = PngImagePlugin.PngInfo()
    meta.add_itxt("XML:com.adobe.xmp", '<x tiff:Orientation="8"/>')
    Image.fromarray(np.ascontiguousarray(rgb[:16, :20])).save(path("xmp8.png"), pnginfo=meta)
    Image.fromarray(picture(1, 1, 3, 7)).save(path("one.png"))
    for name in ("rgb", "rgba", "grey", "la", "palette", "palette_trns", "bit", "grey16", "rgb16", "la16", "rgba16",
                 "grey2", "grey4", "interlaced", "trns_rgb", "exif6", "xmp8", "one"):
        decode_case(name + ".png")
    for name in ("rgba", "la", "palette_trns", "trns_rgb", "rgb", "grey"):
        decode_case(name + ".png", 4)
    for name in ("grey", "bit", "grey16", "la", "rgba", "palette"):
        decode_case(name + ".png", 1)


def make_preprocess():
    Image.fromarray(picture(90, 61, 3, 8)).save(path("wide.png"))
    for args in (("wide.png", 3, 32, 32, 0.875, False, "bicubic"), ("wide.png", 3, 32, 32, 0.875, False, "bilinear"),
                 ("wide.png", 3, 33, 33, 0.9, False, "bicubic"), ("wide.png", 3, 24, 24, 1.0, True, "bicubic"),
                 ("wide.png", 3, 24, 40, 0.875, False, "bicubic"), ("wide.png", 3, 40, 24, 0.875, False, "bicubic"),
                 ("wide.png", 3, 20, 36, 1.0, True, "bilinear"), ("wide.png", 3, 61, 61, 1.0, False, "bicubic"),
                 ("wide.png", 3, 96, 96, 1.0, False, "bicubic"), ("wide.png", 3, 61, 30, 1.0, True, "bicubic"),
                 ("wide.png", 1, 31, 31, 0.875, False, "bicubic"), ("rgba.png", 4, 21, 21, 0.875, False, "bicubic"),
                 ("exif6.jpg", 3, 16, 16, 0.95, False, "bicubic"), ("one.png", 3, 8, 8, 0.875, False, "bicubic"),
                 ("cmyk.jpg", 3, 16, 16, 0.875, False, "bicubic"), ("grey.jpg", 3, 28, 28, 0.875, False, "bicubic"),
                 ("interlaced.png", 3, 64, 64, 0.875, False, "bicubic")):
        preprocess_case(*args)


def make_broken():
    def broken(name, data, text):
        with open(path(name), "wb") as f:
            f.write(data)
        cases.append(f"error {name} {text}")
    jpg, prog, pic = (open(path(n), "rb").read() for n in ("rgb420.jpg", "progressive.jpg", "rgb.png"))
    broken("truncated.jpg", jpg[:len(jpg) * 2 // 3], "truncated")
    broken("truncated_header.jpg", jpg[:40], "truncated")
    broken("truncated_progressive.jpg", prog[:len(prog) // 2], "truncated")
    sos = jpg.find(b"\xff\xda")
    bad = bytearray(jpg)
    bad[sos + 30:sos + 60] = b"\xff\0" * 15  # ones: no Huffman code
    broken("corrupt.jpg", bytes(bad), "corrupt JPEG")
    broken("no_tables.jpg", b"\xff\xd8" + jpg[jpg.find(b"\xff\xc0"):], "corrupt JPEG")
    broken("truncated.png", pic[:len(pic) // 2], "truncated")
    bad = bytearray(pic)
    bad[len(bad) // 2] ^= 0x55
    broken("crc.png", bytes(bad), "corrupt PNG")
    broken("huge.png", pic[:8] + chunk(b"IHDR", struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)) + pic[33:],
           "60000x60000 pixels; the limits are")
    broken("zero.png", pic[:8] + chunk(b"IHDR", struct.pack(">IIBBBBB", 0, 5, 8, 2, 0, 0, 0)) + pic[33:], "corrupt PNG")
    broken("empty.jpg", b"", "the file is empty")
    broken("gif.png", b"GIF89a" + b"\0" * 20, "a GIF file")
    broken("text.jpg", b"hello, this is no picture\n", "neither a JPEG nor a PNG file")
    broken("signature.png", pic[:8], "truncated")


def make_archives():
    """Small tar files, without the padding at their end; they seed the fuzzer, too."""
    folder = os.path.join(OUT, "..", "..", "..", "fuzz", "corpus", "image")
    os.makedirs(folder, exist_ok=True)
    one = open(path("one.png"), "rb").read()
    long = "a-folder-with-a-long-name/" * 6 + "picture.png"
    for name, form in (("ustar.tar", tarfile.USTAR_FORMAT), ("pax.tar", tarfile.PAX_FORMAT),
                       ("gnu.tar", tarfile.GNU_FORMAT)):
        b = io.BytesIO()
        with tarfile.open(fileobj=b, mode="w", format=form) as t:
            for member, data in (("./cats/one.png", one), ("labels.txt", b"text"), ("dogs/.hidden.png", one),
                                 (long, one), ("dogs/broken.jpg", b"\xff\xd8\xff")):
                info = tarfile.TarInfo(member)
                info.size = len(data)
                t.addfile(info, io.BytesIO(data))
            link = tarfile.TarInfo("link.png")
            link.type, link.linkname = tarfile.SYMTYPE, "cats/one.png"
            t.addfile(link)
        data = b.getvalue().rstrip(b"\0")
        with open(os.path.join(folder, name), "wb") as f:
            f.write(data + b"\0" * (-len(data) % 512))
    for name in ("exif6.jpg", "progressive.jpg", "ycck.jpg", "rgb411.jpg", "exif6.png", "xmp8.png", "palette_trns.png",
                 "interlaced.png", "la16.png", "grey2.png", "bit.png"):
        with open(path(name), "rb") as f, open(os.path.join(folder, name), "wb") as g:
            g.write(f.read())


def vectors(folder):
    lines = []
    for name in sorted(os.listdir(folder)):
        if not name.endswith((".jpg", ".png")):
            continue
        im = upright(Image.open(os.path.join(folder, name)), 3)
        for size, crop, warp in ((224, 0.875, False), (384, 1.0, True)):
            a = pixels(preprocess(im, size, size, crop, warp, "bicubic"))
            lines.append(f"{name} {size} {crop} {int(warp)} {zlib.crc32(a.tobytes()):08x}")
    with open(path("vectors.txt"), "w") as f:
        f.write("\n".join(lines) + "\n")


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--vectors", help="folder of the test vectors")
    args = p.parse_args()
    os.makedirs(OUT, exist_ok=True)
    make_jpegs()
    make_pngs()
    make_preprocess()
    make_broken()
    make_archives()
    with open(path("cases.txt"), "w") as f:
        f.write("\n".join(cases) + "\n")
    if args.vectors:
        vectors(args.vectors)


main()
