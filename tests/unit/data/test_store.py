"""The image store: exact where nothing is resized, cached once, honest about bad images and full disks."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from reidassoc.data import store as module
from reidassoc.data.images import ArrayImages, FileImages
from reidassoc.data.store import ImageStore, cache_folder, resize
from reidassoc.errors import DataError
from reidassoc.types import Modality, Records

SIZE = (12, 6)


def pictures(count: int = 5, size: tuple[int, int] = SIZE, seed: int = 0) -> np.ndarray:  # type: ignore[type-arg]
    return np.random.default_rng(seed).integers(0, 256, (count, *size, 3), dtype=np.uint8)


def of_arrays(images: np.ndarray) -> Records:  # type: ignore[type-arg]
    names = tuple(f"image {row}" for row in range(len(images)))
    return Records(Modality.VISIBLE, torch.ones(len(images), dtype=torch.int64), names, ArrayImages(images))


def of_files(root: Path, count: int = 5, bad: tuple[int, ...] = ()) -> Records:
    names = []
    for row, image in enumerate(pictures(count)):
        names.append(f"{row}.png")
        Image.fromarray(image).save(root / names[-1])
        if row in bad:
            (root / names[-1]).write_bytes(b"\x89PNG\r\n\x1a\nrubbish")
    return Records(Modality.INFRARED, torch.ones(count, dtype=torch.int64), tuple(names), FileImages(root, names))


@pytest.mark.parametrize("limit", [0, 2**20])
def test_is_bit_exact_at_the_images_own_size(tmp_path: Path, limit: int) -> None:
    images = pictures()
    store = ImageStore(of_arrays(images), size=SIZE, cache=tmp_path, memory_limit=limit)
    got = store.read(torch.tensor([3, 0, 3]))
    assert got.dtype == torch.uint8
    assert torch.equal(got, torch.from_numpy(images[[3, 0, 3]].transpose(0, 3, 1, 2).copy()))
    assert store.on_disk == (limit == 0)
    assert (len(store), store.bad, store.good.tolist()) == (5, (), [0, 1, 2, 3, 4])
    got.zero_()  # a copy: the store is as it was
    assert torch.equal(store.read(np.array([3])), torch.from_numpy(images[[3]].transpose(0, 3, 1, 2).copy()))


@pytest.mark.parametrize("limit", [0, 2**20])
@pytest.mark.parametrize("row", [-1, 5])
def test_a_row_that_is_not_there_is_refused(tmp_path: Path, limit: int, row: int) -> None:
    store = ImageStore(of_arrays(pictures()), size=SIZE, cache=tmp_path, memory_limit=limit)
    with pytest.raises(IndexError, match=f"{row} .*of 5 images"):
        store.read(torch.tensor([0, row]) if row > 0 else torch.tensor([row, 0]))


def test_resizing_is_bilinear_with_antialias() -> None:
    flat = np.full((40, 20, 3), 77, np.uint8)
    assert torch.equal(resize(flat, SIZE), torch.full((3, *SIZE), 77, dtype=torch.uint8))
    fine = np.zeros((48, 24, 3), np.uint8)
    fine[::2] = 254  # stripes of one pixel: without antialias they would alias to black or white
    inner = resize(fine, SIZE)[:, 1:-1].float()
    assert float((inner - 127).abs().max()) <= 3
    halved = resize(pictures(1, (24, 12))[0], SIZE)
    reference = np.asarray(Image.fromarray(pictures(1, (24, 12))[0]).resize((6, 12), Image.Resampling.BILINEAR))
    assert int((halved.permute(1, 2, 0).int() - torch.from_numpy(reference.copy()).int()).abs().max()) <= 1


def test_memory_and_disk_agree_and_the_cache_is_filled_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data").mkdir()
    records = of_files(tmp_path / "data")
    small = (8, 4)
    memory = ImageStore(records, size=small)
    disk = ImageStore(records, size=small, cache=tmp_path / "cache", memory_limit=0)
    rows = torch.arange(5)
    assert torch.equal(memory.read(rows), disk.read(rows))
    assert [path.suffix for path in (tmp_path / "cache").iterdir()].count(".part") == 0

    def fail(self: FileImages, row: int) -> None:
        raise AssertionError("decoded twice")

    monkeypatch.setattr(FileImages, "load", fail)
    again = ImageStore(records, size=small, cache=tmp_path / "cache", memory_limit=0)
    assert torch.equal(memory.read(rows), again.read(rows))
    with pytest.raises(AssertionError, match="decoded twice"):  # another size is another entry
        ImageStore(records, size=SIZE, cache=tmp_path / "cache", memory_limit=0)


def test_changed_files_and_damaged_caches_are_decoded_again(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    records = of_files(tmp_path / "data")
    cache = tmp_path / "cache"

    def opened() -> ImageStore:
        return ImageStore(records, size=SIZE, cache=cache, memory_limit=0)

    first = opened().read(torch.tensor([2]))
    entry = next(cache.glob("*/images.npy"))
    entry.write_bytes(entry.read_bytes()[:-10])  # cut off
    assert torch.equal(opened().read(torch.tensor([2])), first)
    np.save(entry, np.zeros((1, 3, *SIZE), np.uint8))  # of another shape
    assert torch.equal(opened().read(torch.tensor([2])), first)
    left = cache / f"{entry.parent.name}.999.part"
    left.mkdir()  # of a run that was killed
    (entry.parent / "problems.json").unlink()
    assert torch.equal(opened().read(torch.tensor([2])), first)
    for rubbish in ("[]", '{"a": ""}', '{"7": ""}', "{"):
        (entry.parent / "problems.json").write_text(rubbish)
        assert torch.equal(opened().read(torch.tensor([2])), first), rubbish
    assert not left.exists()
    Image.fromarray(255 - pictures()[2]).save(tmp_path / "data" / "2.png")
    assert torch.equal(opened().read(torch.tensor([2])), 255 - first)
    assert len(list(cache.glob("*/images.npy"))) == 2


@pytest.mark.parametrize("limit", [0, 2**20])
def test_training_leaves_corrupt_images_out_and_evaluation_refuses(tmp_path: Path, limit: int) -> None:
    (tmp_path / "data").mkdir()
    records = of_files(tmp_path / "data", bad=(1, 4))
    for _ in range(2):  # the second time from the cache
        store = ImageStore(records, size=SIZE, cache=tmp_path / "cache", memory_limit=limit)
        assert store.bad == (1, 4)
        assert store.good.tolist() == [0, 2, 3]
        assert ["1.png" in store.problems[0], "4.png" in store.problems[1]] == [True, True]
        assert torch.equal(store.read(store.good)[1], torch.from_numpy(pictures()[2].transpose(2, 0, 1).copy()))
    with pytest.raises(DataError, match=r"image 4 can't be read: .*4\.png.*; read only the rows in `good`"):
        store.read(torch.tensor([0, 4]))
    with pytest.raises(
        DataError, match=r"2 of 5 infrared images can't be read, and evaluation needs every image: .*1\.png"
    ):
        ImageStore(records, size=SIZE, strict=True, cache=tmp_path / "cache", memory_limit=limit)
    Image.fromarray(pictures()[1]).save(tmp_path / "data" / "1.png")
    Image.fromarray(pictures()[4]).save(tmp_path / "data" / "4.png")
    assert ImageStore(records, size=SIZE, strict=True, cache=tmp_path / "cache", memory_limit=limit).bad == ()


def test_a_problem_that_has_gone_away_is_not_remembered(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    records = of_files(tmp_path / "data")
    ImageStore(records, size=SIZE, cache=tmp_path / "cache", memory_limit=0)
    problems = next((tmp_path / "cache").glob("*/problems.json"))
    problems.write_text(json.dumps({"3": "a network file system was away"}))
    assert ImageStore(records, size=SIZE, cache=tmp_path / "cache", memory_limit=0).bad == ()


def test_no_readable_image_at_all_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"4 of 4 infrared images can't be read, and nothing is left.*; …\. Replace"):
        ImageStore(of_files(tmp_path, count=4, bad=(0, 1, 2, 3)), size=SIZE)


def test_no_images_are_no_problem() -> None:
    empty = ImageStore(of_arrays(pictures()[:0]), size=SIZE, strict=True)
    assert empty.read(torch.zeros(0, dtype=torch.int64)).shape == (0, 3, *SIZE)


def test_the_size_must_be_positive() -> None:
    with pytest.raises(DataError, match="image size must be positive, got 0 × 6"):
        ImageStore(of_arrays(pictures()), size=(0, 6))


def test_a_full_disk_is_an_error_and_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module, "write_header", full)
    with pytest.raises(DataError, match=r"no space left for decoded images in .*GiB are needed; .*REIDASSOC_CACHE"):
        ImageStore(of_arrays(pictures()), size=SIZE, cache=tmp_path, memory_limit=0)
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]


def test_a_cache_folder_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"can't keep decoded images in .*file: .*; set REIDASSOC_CACHE"):
        ImageStore(of_arrays(pictures()), size=SIZE, cache=tmp_path / "file", memory_limit=0)


def test_a_cache_damaged_at_once_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ImageStore, "_open_entry", lambda self, folder: None)
    with pytest.raises(DataError, match="damaged while it was made"):
        ImageStore(of_arrays(pictures()), size=SIZE, cache=tmp_path, memory_limit=0)


def test_the_cache_folder_follows_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REIDASSOC_CACHE", str(tmp_path / "mine"))
    assert cache_folder() == tmp_path / "mine"
    store = ImageStore(of_arrays(pictures()), size=SIZE, memory_limit=0)
    assert store.on_disk
    assert list((tmp_path / "mine").glob("*/images.npy"))
    monkeypatch.delenv("REIDASSOC_CACHE")
    assert cache_folder() == Path.home() / ".cache" / "reidassoc"


def test_runs_without_file_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import fcntl

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "no locks")

    monkeypatch.setattr(fcntl, "flock", refuse)
    assert ImageStore(of_arrays(pictures()), size=SIZE, cache=tmp_path, memory_limit=0).on_disk
