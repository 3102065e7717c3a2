"""TIFF files of several bands: all of them, as they are, where the network takes so many; else their true reason."""

import numpy as np
import pytest
import tifffile
import torch

from flexunet_pl.common.errors import DataError
from flexunet_pl.io.images import read_image, read_size, resize_image
from flexunet_runtime.bands import read_bands
from flexunet_runtime.window import Window

VALUES = np.random.default_rng(0).integers(0, 256, (9, 11, 5), dtype=np.uint8)
TOGETHER = {"photometric": "minisblack", "planarconfig": "contig"}


@pytest.mark.parametrize("bands", [2, 4, 5])
@pytest.mark.parametrize("planar", [False, True])
@pytest.mark.parametrize("packed", [None, "zlib"])
def test_all_bands_are_read_as_they_are(tmp_path, bands, planar, packed):
    values = VALUES[..., :bands]
    stored = np.moveaxis(values, -1, 0) if planar else values
    options = TOGETHER | ({"planarconfig": "separate"} if planar else {})
    tifffile.imwrite(tmp_path / "a.tif", stored, rowsperstrip=4, compression=packed, **options)
    assert np.array_equal(read_image(tmp_path / "a.tif", bands), values)
    assert read_size(tmp_path / "a.tif", bands) == (9, 11)


def test_bands_of_16_bits_want_a_window(tmp_path):
    wide = VALUES[..., :4].astype(np.uint16) * 40
    tifffile.imwrite(tmp_path / "a.tif", wide, **TOGETHER)
    with pytest.raises(DataError, match=r"more than 8 bits per band, values 0 to \d+; say how to scale it"):
        read_image(tmp_path / "a.tif", 4)
    window = Window(0, 10_000)
    assert np.array_equal(read_image(tmp_path / "a.tif", 4, window), window.apply(wide))


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (VALUES[..., :4], "has 4 bands, and model.in_channels is 5"),
        (np.stack([VALUES] * 3), "holds several frames"),
        (VALUES.astype(np.complex64), "has bands of type complex64"),
    ],
)
def test_other_files_are_refused_by_their_true_reason(tmp_path, values, reason):
    tifffile.imwrite(tmp_path / "a.tif", values, **TOGETHER)
    with pytest.raises(DataError, match=rf"a\.tif: {reason}"):
        read_image(tmp_path / "a.tif", 5)


def test_a_file_that_unpacks_to_more_than_it_declares_is_refused(tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.zeros((2000, 2000, 4), np.uint8), compression="zlib", rowsperstrip=2000, **TOGETHER)
    content = path.read_bytes()
    with tifffile.TiffFile(path) as tiff:
        tags = tiff.pages.first.tags
        places = [tags[name].valueoffset for name in ("ImageWidth", "ImageLength", "RowsPerStrip")]
    changed = bytearray(content)
    for place in places:
        changed[place : place + 2] = (20).to_bytes(2, "little")
    path.write_bytes(changed)
    with pytest.raises(DataError, match="unpacks to more than it declares"):
        read_bands(path, 4, None, 10**6)
    path.write_bytes(content[:300])
    with pytest.raises(DataError, match="damaged, or no TIFF"):
        read_bands(path, 4, None, 10**8)
    path.write_bytes(content)
    with pytest.raises(DataError, match="over the limit of 1 megapixels"):
        read_bands(path, 4, None, 10**6)


def test_each_band_is_resized_alone():
    small = resize_image(VALUES, (4, 6))
    assert small.shape == (4, 6, 5)
    for band in range(5):
        assert np.array_equal(small[..., band], resize_image(VALUES[..., band : band + 1], (4, 6))[..., 0])


def test_a_network_of_four_bands_is_trained_scored_and_applied(phantoms, workspace, flexunet, mistake):
    for split in ("train", "valid", "test"):
        (workspace / "d" / split / "images").mkdir(parents=True)
        (workspace / "d" / split / "masks").symlink_to(phantoms / split / "masks")
        for path in (phantoms / split / "images").iterdir():
            image = read_image(path)
            bands = np.concatenate([image, 255 - image[..., :1]], axis=2)
            tifffile.imwrite(workspace / "d" / split / "images" / f"{path.stem}.tif", bands, **TOGETHER)
    flexunet("fit", "-c", "c.yaml", "--data.root", "d", "--model.in_channels", 4, "--data.train_transform", "ct_light")
    run = workspace / "runs" / "flexunet" / "version_0"
    best = run / "checkpoints" / "best.ckpt"
    weights = torch.load(best, weights_only=True)["state_dict"]
    assert next(w for w in weights.values() if getattr(w, "ndim", 0) == 4).shape[1] == 4
    flexunet("test", "--ckpt_path", best, "--data.root", "d", "--data.num_workers", 0)
    flexunet("report", run)
    flexunet("predict", "--ckpt_path", best, "--data.predict_dir", "d/test/images", "--data.num_workers", 0,
             "--prediction.output_dir", "out", "--prediction.overlay", "true")  # fmt: skip
    assert len(list((workspace / "out").glob("*.png"))) == 3
    assert len(list((workspace / "out" / "overlays").glob("*.png"))) == 3
    assert "other channels than R, G, B or grey" in mistake("export", best, "--to", "onnx")
    assert "in_channels (0)" in mistake("fit", "-c", "c.yaml", "--data.root", "d", "--model.in_channels", 0)
