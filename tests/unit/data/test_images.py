"""Image files and arrays as sources of pixels."""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from reidassoc.data import images
from reidassoc.data.array_file import ArrayFile
from reidassoc.data.images import ArrayImages, FileImages, asks_for_a_turn, open_array, read_image
from reidassoc.errors import DataError

NOISE = np.random.default_rng(0).integers(0, 256, (9, 5, 3), dtype=np.uint8)


@pytest.mark.parametrize("written", ["PNG", "BMP", "JPEG"])
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp"])
def test_the_content_counts_not_the_suffix(tmp_path: Path, written: str, suffix: str) -> None:
    path = tmp_path / f"picture{suffix}"
    Image.fromarray(NOISE).save(path, format=written)
    got = read_image(path)
    assert (got.shape, got.dtype) == (NOISE.shape, np.uint8)
    if written != "JPEG":
        assert np.array_equal(got, NOISE)


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "1", "LA"])
def test_other_modes_become_rgb(tmp_path: Path, mode: str) -> None:
    Image.fromarray(NOISE).convert(mode).save(tmp_path / "x.png")
    got = read_image(tmp_path / "x.png")
    assert got.shape == NOISE.shape
    if mode == "L":
        assert np.array_equal(got[..., 0], got[..., 2])


def png(width: int, height: int, rows: bytes = b"", *, bits: int = 8, kind: int = 2) -> bytes:
    """A PNG of a size, bit depth and colour type (0 grey, 2 colour, 4 and 6 the same with alpha); without rows it is empty."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@pytest.mark.parametrize(("kind", "channels"), [(0, 1), (4, 2), (2, 3), (6, 4)])
def test_sixteen_bits_per_channel_are_refused(tmp_path: Path, kind: int, channels: int) -> None:
    """Pillow drops the low byte of all but plain grey without a word."""
    for bits in (8, 16):
        row = b"\0" + bytes(8 * channels * bits // 8)
        (tmp_path / f"{bits}.png").write_bytes(png(8, 4, row * 4, bits=bits, kind=kind))
    assert read_image(tmp_path / "8.png").shape == (4, 8, 3)
    with pytest.raises(DataError, match=r"16\.png: more than 8 bits per channel"):
        read_image(tmp_path / "16.png")


@pytest.mark.parametrize("depth", ["JPEG", "TIFF"])
def test_other_deep_images_name_the_eight_bits(tmp_path: Path, depth: str) -> None:
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "x", format=depth)
    if depth == "JPEG":  # of 12 bits, by its header
        content = bytearray((tmp_path / "x").read_bytes())
        content[content.index(b"\xff\xc0") + 4] = 12
        (tmp_path / "x").write_bytes(content)
    with pytest.raises(DataError, match="8 bits per channel"):
        read_image(tmp_path / "x")


@pytest.mark.parametrize("written", ["PNG", "JPEG"])
def test_a_turn_that_exif_asks_for_is_known_and_ignored(tmp_path: Path, written: str) -> None:
    for orientation in (None, 0, 1, 6):
        exif = Image.Exif()
        if orientation is not None:
            exif[0x0112] = orientation
        Image.fromarray(NOISE).save(tmp_path / f"{orientation}", format=written, exif=exif)
        assert asks_for_a_turn(tmp_path / f"{orientation}") == (orientation == 6)
        assert read_image(tmp_path / f"{orientation}").shape == NOISE.shape
    (tmp_path / "rubbish").write_bytes(b"rubbish")
    assert not asks_for_a_turn(tmp_path / "rubbish")


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("side", [10_000, 60_000])
def test_absurd_sizes_are_refused_before_decoding(tmp_path: Path, side: int) -> None:
    (tmp_path / "bomb.png").write_bytes(png(side, side))
    with pytest.raises(DataError, match=r"bomb\.png: .*more than 40 million"):
        read_image(tmp_path / "bomb.png")


def test_what_is_wrong_is_said_with_the_name(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.png: no such file"):
        read_image(tmp_path / "gone.png")
    with pytest.raises(DataError, match="Is a directory"):
        read_image(tmp_path)
    (tmp_path / "text.jpg").write_text("no picture")
    with pytest.raises(DataError, match=r"text\.jpg: not an image; expected the content of a PNG, JPEG, BMP file"):
        read_image(tmp_path / "text.jpg")
    Image.fromarray(NOISE).save(tmp_path / "animation.png", format="GIF")
    with pytest.raises(DataError, match="not an image"):
        read_image(tmp_path / "animation.png")
    Image.fromarray(np.zeros((4, 4), np.uint16)).save(tmp_path / "deep.png")
    with pytest.raises(DataError, match=r"deep\.png: more than 8 bits per channel"):
        read_image(tmp_path / "deep.png")


@pytest.mark.parametrize("written", ["PNG", "BMP", "JPEG"])
def test_a_truncated_file_is_corrupt(tmp_path: Path, written: str) -> None:
    big = np.random.default_rng(1).integers(0, 256, (64, 32, 3), dtype=np.uint8)
    path = tmp_path / "cut.img"
    Image.fromarray(big).save(path, format=written)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(DataError, match=r"cut\.img: corrupt image"):
        read_image(path)


def test_files_below_a_root(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    for name in ("a/1.png", "a/2.png"):
        Image.fromarray(NOISE).save(tmp_path / name)
    source = FileImages(tmp_path, ["a/2.png", "a/1.png"])
    assert len(source) == 2
    assert np.array_equal(source.load(1), NOISE)
    before, mark = source.fingerprint(), source.mark()
    assert FileImages(tmp_path, ["a/2.png", "a/1.png"]).fingerprint() == before
    os.utime(tmp_path / "a/1.png", ns=(1, 1))
    assert source.fingerprint() != before
    assert source.mark() == mark  # a copy of the data differs in its times only
    (tmp_path / "a/1.png").unlink()
    assert source.mark() != mark
    with pytest.raises(DataError, match=r"1\.png: no such file"):
        source.load(1)


def test_arrays(tmp_path: Path) -> None:
    many = np.stack([NOISE, NOISE[::-1]])
    source = ArrayImages(many)
    assert len(source) == 2
    assert np.array_equal(source.load(1), NOISE[::-1])
    assert source.fingerprint() == ArrayImages([NOISE, NOISE[::-1].copy()]).fingerprint()
    changed = many.copy()
    changed[1, 0, 0, 0] ^= 1
    assert ArrayImages(changed).fingerprint() != source.fingerprint()
    assert ArrayImages(changed).mark() != source.mark()
    assert ArrayImages(many, key="k").fingerprint() == ArrayImages(changed, key="k").fingerprint()
    assert ArrayImages(many[:0]).mark() != source.mark()
    with pytest.raises(DataError, match=r"array image 1 must be \(H, W, 3\) uint8 RGB, got \(9, 5\) uint8"):
        ArrayImages([NOISE, NOISE[..., 0]])


def test_arrays_on_the_disk(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.stack([NOISE, 255 - NOISE]))
    array = open_array(tmp_path / "x.npy")
    assert array.shape == (2, *NOISE.shape)
    assert np.array_equal(ArrayImages(array).load(1), 255 - NOISE)
    assert ArrayImages(array).fingerprint() == ArrayImages([NOISE, 255 - NOISE]).fingerprint()
    with pytest.raises(IndexError, match=r"has the rows 0 to 1, not all of \[2\]"):
        array[2]
    np.save(tmp_path / "flat.npy", NOISE)
    with pytest.raises(DataError, match=r"flat\.npy: expected images \(N, H, W, 3\) uint8, found \(9, 5, 3\) uint8"):
        open_array(tmp_path / "flat.npy")
    np.save(tmp_path / "pickled.npy", np.array([object()]), allow_pickle=True)
    with pytest.raises(DataError, match=r"pickled\.npy: can't be read as an array"):
        open_array(tmp_path / "pickled.npy")
    np.save(tmp_path / "columns.npy", np.asfortranarray(np.stack([NOISE] * 2)))
    with pytest.raises(DataError, match=r"columns\.npy: can't be read as an array: .* in C order"):
        open_array(tmp_path / "columns.npy")
    with open(tmp_path / "negative.npy", "wb") as file:
        header = {"descr": "|u1", "fortran_order": False, "shape": (2, -400, 5, 3)}
        np.lib.format.write_array_header_1_0(file, header)
    with pytest.raises(DataError, match=r"negative\.npy: can't be read as an array"):
        open_array(tmp_path / "negative.npy")
    np.savez(tmp_path / "several.npz", a=NOISE)
    with pytest.raises(DataError, match=r"several\.npz: can't be read as an array"):
        open_array(tmp_path / "several.npz")


def test_an_array_cut_off_while_in_use_is_an_error(tmp_path: Path) -> None:
    """Mapped, it would be a fatal signal."""
    path = tmp_path / "x.npy"
    np.save(path, np.arange(6000, dtype=np.int64).reshape(3, 2000))
    array = ArrayFile(path)
    assert array.rows(np.array([2, 0])).tolist() == [[*range(4000, 6000)], [*range(2000)]]
    os.truncate(path, path.stat().st_size - 8)
    assert int(array[1][0]) == 2000
    with pytest.raises(DataError, match=r"x\.npy was cut off while it was in use"):
        array.rows(np.array([0, 2]))
    with pytest.raises(ValueError, match="mmap length is greater than file size"):
        ArrayFile(path)


def test_an_array_that_is_gone_is_an_error(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros(3))
    array = ArrayFile(tmp_path / "x.npy")
    (tmp_path / "x.npy").unlink()
    with pytest.raises(DataError, match=r"x\.npy can't be read any more"):
        array[0]


def test_every_suffix_is_one_of_a_format() -> None:
    assert {suffix.strip(".").replace("jpg", "jpeg").upper() for suffix in images.SUFFIXES} == set(images.FORMATS)
