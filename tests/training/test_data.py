"""Training data: layouts, what is skipped, and crops that depend on seed and number alone."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from models.errors import ImageError
from training.crops import MEMORY, CropsOnDevice, Pixels, RandomCrops
from training.data import ImageSet, Source, centre_crops, held_out, open_dataset


def save(path: Path, height: int = 20, width: int = 30) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.randint(0, 256, (height, width, 3), np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def truncate(path: Path) -> None:
    """Cut a file in the middle of its pixels; its header stays whole."""
    os.truncate(path, path.stat().st_size // 2)


def names(images: ImageSet) -> list[str]:
    return [s.name for s in images.sources]


def coordinates(*shapes: tuple[int, int]) -> ImageSet:
    """Images in memory whose pixel at (row, column) of image k is (row, column, k)."""
    sources = []
    for k, (height, width) in enumerate(shapes):
        rows, columns = np.mgrid[:height, :width]
        pixels = np.stack([rows, columns, np.full_like(rows, k)], 2).astype(np.uint8)
        sources.append(Source(f"image{k}", height, width, pixels=pixels))
    return ImageSet("coordinates", tuple(sources))


def crops_of(images: ImageSet, crop: int, seed: int = 0, memory: int = MEMORY) -> RandomCrops:
    return RandomCrops(Pixels(images, crop, memory), crop, seed)


def drawn(crops: RandomCrops, count: int) -> torch.Tensor:
    """The first crops as they are stored, uint8 (count, 3, crop, crop)."""
    return (crops.batch(0, count) * 255).round().to(torch.uint8)


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_flat_or_nested_folder(tmp_path, split):
    for name in ("b10.png", "b9.jpg", "shard_0/a.png", "shard_1/deep/a.bmp"):
        save(tmp_path / name)
    (tmp_path / "manifest.csv").write_text("not an image")
    images = open_dataset(tmp_path, split)
    assert names(images) == ["b9.jpg", "b10.png", "shard_0/a.png", "shard_1/deep/a.bmp"]
    assert images.skipped == ()
    assert images.report() == f"{tmp_path}: 4 images, 0.0 megapixels"


def test_a_train_and_test_pair(tmp_path):
    save(tmp_path / "test" / "b.png")
    with pytest.raises(ImageError, match="has a folder test/ but none named train/"):
        open_dataset(tmp_path, "train")
    save(tmp_path / "train" / "class" / "a.png")
    assert names(open_dataset(tmp_path, "train")) == ["class/a.png"]
    assert names(open_dataset(tmp_path, "test")) == ["b.png"]


@pytest.mark.parametrize(("kind", "frames"), [("sep", 7), ("tri", 3)])
def test_vimeo_90k(tmp_path, kind, frames):
    for clip in ("00001/0001", "00001/0002", "00002/0001"):
        for i in range(1, frames + 1):
            save(tmp_path / "sequences" / clip / f"im{i}.png", 16, 28)
    (tmp_path / f"{kind}_testlist.txt").write_text("00001/0002\n")
    with pytest.raises(ImageError, match=r"neither sep_trainlist\.txt nor tri_trainlist\.txt"):
        open_dataset(tmp_path, "train")
    (tmp_path / f"{kind}_trainlist.txt").write_text("00002/0001\n00001/0001\n00009/0009\n\n")
    train, test = open_dataset(tmp_path, "train"), open_dataset(tmp_path, "test")
    assert names(train) == ["00001/0001", "00002/0001"] and names(test) == ["00001/0002"]
    assert train.sources[0].files == tuple(f"im{i}.png" for i in range(1, frames + 1))
    assert f"(Vimeo-90k, train): 2 images as clips of {2 * frames} frames" in train.report()
    assert "00009/0009 is in" in train.report()

    # Every frame of the clips is drawn.
    crops = crops_of(train, 16)
    crops.batch(0, 40 * frames)
    assert sorted(crops.arrays.kept) == [(k, i) for k in range(2) for i in range(frames)]

    middle = train.sources[0].read(frames // 2)
    centre = centre_crops(train, 16)["00001/0001"].permute(1, 2, 0).numpy()
    assert np.array_equal((centre * 255).round(), middle[:, 6:22])


def test_what_is_skipped_is_counted_and_explained(tmp_path):
    for i in range(5):
        save(tmp_path / f"small{i}.png", 10, 30)
    save(tmp_path / "good.png")
    (tmp_path / "broken.jpg").write_text("no image")
    Image.new("CMYK", (40, 40)).save(tmp_path / "print.jpg")
    images = open_dataset(tmp_path, min_side=16)
    assert names(images) == ["good.png"] and len(images.skipped) == 7
    report = images.report().splitlines()
    assert report[0] == f"{tmp_path}: 1 image, 0.0 megapixels; skipped 7:"
    assert sum("CMYK" in line for line in report) == 1
    assert "  small0.png is 30x10, smaller than the crop of 16x16." in report
    assert report[-1] == "  ... and 2 more"


def test_no_usable_image_is_one_clear_error(tmp_path):
    with pytest.raises(ImageError, match="There is no image in"):
        open_dataset(tmp_path)
    with pytest.raises(ImageError, match="does not exist"):
        open_dataset(tmp_path / "nowhere")
    save(tmp_path / "a.png", 8, 8)
    with pytest.raises(ImageError, match="no usable image.*skipped 1:\n  a.png is 8x8"):
        open_dataset(tmp_path, min_side=16)


def test_an_image_that_is_damaged_or_shrank_since_it_was_found_is_replaced(tmp_path, capsys):
    for i in range(4):
        save(tmp_path / f"{i}.png")
    truncate(tmp_path / "2.png")
    images = open_dataset(tmp_path, min_side=16)
    save(tmp_path / "3.png", 8, 8)
    crops = crops_of(images, 16, seed=1)
    with ThreadPoolExecutor(4) as pool:
        batch = torch.cat(list(pool.map(lambda step: crops.batch(step, 10), range(4))))
    assert batch.shape == (40, 3, 16, 16)
    assert sorted(crops.arrays.unreadable) == [(2, 0), (3, 0)]
    notes = capsys.readouterr().err
    assert f"{tmp_path / '2.png'} cannot be read: it is damaged" in notes
    assert "3.png has become smaller than the crop." in notes
    # What replaces it is a function of seed and number too.
    assert torch.equal(crops_of(images, 16, seed=1).batch(0, 40), batch)
    assert list(centre_crops(images, 16)) == ["0.png", "1.png"]
    for i in range(2):
        truncate(tmp_path / f"{i}.png")
    with pytest.raises(ImageError, match=r"100 images in a row could not be read"):
        crops_of(images, 16).batch(0, 1)


def test_a_crop_is_a_piece_of_an_image_or_its_mirror_image_from_any_place():
    """Images are drawn in proportion to their areas; of the second there are 24 places."""
    mirrored, places, shares = 0, set(), []
    for crop in drawn(crops_of(coordinates((40, 50), (18, 23)), 16), 1000):
        rows, columns, image = crop.long()
        assert (image == image[0, 0]).all()
        assert (rows == rows[0, 0] + torch.arange(16)[:, None]).all()
        step = int(columns[0, 1] - columns[0, 0])
        assert (columns == columns[0, 0] + step * torch.arange(16)).all()
        mirrored += step == -1
        shares.append(int(image[0, 0]))
        if shares[-1]:
            places.add((int(rows[0, 0]), int(columns.min())))
    assert 420 < mirrored < 580
    assert places == {(y, x) for y in range(3) for x in range(8)}
    assert abs(np.mean(shares) - 414 / 2414) < 0.05  # four standard deviations


def test_a_crop_depends_on_seed_and_number_alone():
    images = coordinates((40, 50), (30, 90), (64, 64))
    crops = crops_of(images, 16, seed=3)
    later = crops_of(images, 16, seed=3, memory=0)
    assert torch.equal(later.batch(7, 4), crops.batch(7, 4))  # without the steps before
    one_by_one = torch.cat([later.batch(i, 1) for i in range(15, 20)])
    assert torch.equal(crops.batch(3, 5), one_by_one)
    for processes in (2, 3):  # share the batch of one
        for rank in range(processes):
            part = crops.batch(5, 6, rank, processes)
            assert torch.equal(part, crops.batch(5, 6)[rank::processes])
    assert not torch.equal(crops_of(images, 16, seed=4).batch(7, 4), crops.batch(7, 4))


def test_crops_cut_on_a_device_are_the_same(tmp_path, capsys):
    """Of a single image, of a clip, and in place of an image that cannot be read."""
    for name in ("a", "b", "broken"):
        save(tmp_path / f"{name}.png", 40, 50)
    for frame in range(3):
        save(tmp_path / "clip" / f"{frame}.png", 18, 23)
    images = open_dataset(tmp_path)
    truncate(tmp_path / "broken.png")
    files = tuple(f"{frame}.png" for frame in range(3))
    clip = Source("clip", 18, 23, tmp_path / "clip", files)
    images = replace(images, sources=(*images.sources, clip))
    crops = crops_of(images, 16, seed=3)
    there = CropsOnDevice(crops, torch.device("cpu"), threads=2)
    assert torch.equal(there.batch(2, 64), crops.batch(2, 64))
    assert torch.equal(there.batch(2, 64, 1, 2), crops.batch(2, 64, 1, 2))
    assert there.stored(2, 64).shape == (64, 3)
    assert "broken.png" in capsys.readouterr().err
    assert crops.arrays.bytes == 3 * (3 * 40 * 50 + 6 * 18 * 23)
    assert crops_of(images, 16, memory=9).arrays.bytes == float("inf")  # decoded each time


def test_the_crops_stay_what_they_are_from_version_to_version():
    """A run that was begun with an earlier revision must be able to go on."""
    crops = crops_of(coordinates((200, 200), (100, 250)), 16, seed=0)
    first = (crops.batch(0, 2)[:, :, 0, 0] * 255).round().int().tolist()
    far = (crops.batch(10**9, 1)[0, :, 0, 0] * 255).round().int().tolist()
    # Row, column and image of the upper left pixel, as they came out when this was written.
    assert first == [[3, 3, 1], [68, 239, 1]] and far == [2, 109, 0]


def test_memory_is_kept_within_its_budget(tmp_path, monkeypatch):
    for i in range(6):
        save(tmp_path / f"{i}.png", 20, 20)
    reads = []
    read = Source.read
    monkeypatch.setattr(Source, "read", lambda s, *which: reads.append(s.name) or read(s, *which))
    images = open_dataset(tmp_path)
    crops = crops_of(images, 16)
    crops.batch(0, 60)
    assert sorted(reads) == [f"{i}.png" for i in range(6)]  # each once
    assert crops.arrays.room == MEMORY - 6 * 20 * 20 * 3
    reads.clear()
    small = crops_of(images, 16, memory=2 * 20 * 20 * 3)
    assert torch.equal(small.batch(0, 60), crops.batch(0, 60))
    assert small.arrays.room == 0 and 30 < len(reads) < 60


def test_held_out_images_depend_on_their_names_alone():
    images = coordinates(*[(20, 20)] * 30)
    rest, out = held_out(images, 5)
    assert len(out) == 5 and len(rest) == 25
    assert set(names(rest)) | set(names(out)) == set(names(images))
    assert names(rest) == [n for n in names(images) if n in set(names(rest))]  # order kept
    shuffled = ImageSet("elsewhere", images.sources[::-1])
    assert set(names(held_out(shuffled, 5)[1])) == set(names(out))
    assert set(names(held_out(images, 4)[1])) < set(names(out))
    assert names(held_out(images, 0)[1]) == []


def test_the_fingerprint_tells_data_sets_apart():
    images = coordinates((20, 20), (20, 30))
    assert images.fingerprint == coordinates((20, 20), (20, 30)).fingerprint
    assert images.fingerprint != coordinates((20, 20), (30, 20)).fingerprint
    assert len(images.fingerprint) == 16
