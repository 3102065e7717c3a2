import io
import struct
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from flexunet_pl.common.errors import DataError
from flexunet_pl.io.images import read_image, resize_image
from flexunet_pl.io.masks import read_mask, resize_mask, write_mask
from flexunet_pl.io.pairs import Pair, check_pair, list_files, list_pairs
from flexunet_pl.prepare.phantom import PHANTOM_MAP, draw_slice
from flexunet_pl.rgb_map import RgbMap
from flexunet_runtime.window import Window
from tests.handmade import GREY_ALPHA, RGB, bomb, png

MAP = RgbMap.parse({"background": [0, 0, 0], "lung": [0, 0, 255], "tumour": [255, 0, 0]})


def noise(shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def saved(path, picture, **options):
    picture = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    picture.save(path, **options)
    return path


# ---- images


@pytest.mark.parametrize("suffix", ["png", "PNG", "tif", "tiff", "bmp"])
def test_reads_lossless_formats_exactly(tmp_path, suffix):
    image = noise((5, 7, 3))
    assert np.array_equal(read_image(saved(tmp_path / f"a.{suffix}", image)), image)


def test_reads_jpeg_as_pillow_decodes_it(tmp_path):
    path = saved(tmp_path / "a.JPG", noise((16, 24, 3)), format="JPEG")
    assert np.array_equal(read_image(path), np.asarray(Image.open(path)))


def test_the_content_decides_the_format_not_the_suffix(tmp_path):
    path = saved(tmp_path / "a.png", noise((16, 24, 3)), format="JPEG")
    assert read_image(path).shape == (16, 24, 3)


@pytest.mark.parametrize("mode", ["1", "L", "P"])
def test_grey_palette_and_one_bit_become_rgb_exactly(tmp_path, mode):
    picture = Image.fromarray(noise((5, 7))).convert(mode)
    assert np.array_equal(read_image(saved(tmp_path / "a.png", picture)), np.asarray(picture.convert("RGB")))


def test_one_channel_is_the_luminance(tmp_path):
    grey = noise((5, 7))
    assert np.array_equal(read_image(saved(tmp_path / "a.png", grey), channels=1)[..., 0], grey)


def turned(array, orientation):
    return [array, array[:, ::-1], array[::-1, ::-1], array[::-1], array.swapaxes(0, 1), array[::-1].swapaxes(0, 1),
            array[::-1, ::-1].swapaxes(0, 1), array[:, ::-1].swapaxes(0, 1)][orientation - 1]  # fmt: skip


@pytest.mark.case("C8")
@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied_to_image_and_mask(tmp_path, orientation, suffix):
    def with_orientation(name, array):
        exif = Image.Exif()
        exif[0x0112] = orientation
        options = {"tiffinfo": {0x0112: orientation}} if suffix == "tif" else {"exif": exif}
        return saved(tmp_path / f"{name}.{suffix}", array, **options)

    index = np.random.default_rng(1).integers(0, 3, (20, 30)).astype(np.uint8)
    grey, wide = noise((20, 30)), np.arange(600, dtype=np.uint16).reshape(20, 30)
    path = with_orientation("mask", MAP.paint(index))
    assert np.array_equal(read_mask(path, MAP), turned(index, orientation))
    assert np.array_equal(read_image(path), MAP.paint(turned(index, orientation)))
    other = with_orientation("grey", grey)
    assert np.array_equal(read_image(other, channels=1)[..., 0], turned(grey, orientation))
    deep = with_orientation("wide", wide)
    expected = np.rint(turned(wide, orientation) * (255 / 599))
    assert np.array_equal(read_image(deep, channels=1, window=Window(0, 599))[..., 0], expected)
    check_pair(Pair(deep, path))
    upright = saved(tmp_path / "upright.png", MAP.paint(turned(index, orientation)))
    check_pair(Pair(path, upright))


@pytest.mark.case("C4")
def test_sixteen_bits_per_colour_are_refused_not_crushed(tmp_path):
    for kind, channels in ((RGB, 3), (GREY_ALPHA, 2)):
        path = tmp_path / f"{channels}.png"
        path.write_bytes(png(4, 4, 16, kind, (b"\0" + np.full(4 * channels, 900, ">u2").tobytes()) * 4))
        with pytest.raises(DataError, match="16 bits in each of several channels"):
            read_image(path, window=Window(0, 1200))


def test_grey_class_indices_are_not_taken_for_a_black_mask(tmp_path):
    index = np.zeros((64, 64), dtype=np.uint8)
    index[10:30, 10:30] = 2
    with pytest.raises(DataError, match=r"a\.png: its values 0, 2 look like class indices"):
        read_mask(saved(tmp_path / "a.png", index), MAP)
    assert not read_mask(saved(tmp_path / "b.png", np.zeros((64, 64), np.uint8)), MAP).any()


def test_opaque_alpha_is_dropped(tmp_path):
    image = noise((5, 7, 3))
    rgba = np.dstack([image, np.full((5, 7), 255, np.uint8)])
    assert np.array_equal(read_image(saved(tmp_path / "a.png", rgba)), image)


def test_transparency_is_refused(tmp_path):
    rgba = noise((5, 7, 4))
    with pytest.raises(DataError, match=r"a\.png: has transparent pixels; flatten"):
        read_image(saved(tmp_path / "a.png", rgba))


@pytest.mark.case("C5")
def test_a_transparent_palette_entry_is_refused(tmp_path):
    path = saved(tmp_path / "a.png", Image.fromarray(np.zeros((5, 7), np.uint8)).convert("P"), transparency=0)
    with pytest.raises(DataError, match="transparent"):
        read_image(path)


def test_cmyk_is_refused(tmp_path):
    path = saved(tmp_path / "a.jpg", Image.fromarray(noise((8, 8, 3))).convert("CMYK"))
    with pytest.raises(DataError, match="colour mode CMYK is not supported"):
        read_image(path)


def test_several_frames_are_refused(tmp_path):
    frames = [Image.fromarray(noise((5, 7, 3), i)) for i in range(2)]
    for name in ("a.tif", "b.png"):
        path = saved(tmp_path / name, frames[0], save_all=True, append_images=frames[1:])
        with pytest.raises(DataError, match="holds several frames"):
            read_image(path)


def test_other_formats_are_never_decoded(tmp_path):
    path = saved(tmp_path / "a.png", noise((5, 7, 3)), format="GIF")
    with pytest.raises(DataError, match="is no PNG, JPEG, TIFF, BMP or DICOM image"):
        read_image(path)


def test_sixteen_bits_want_a_window_and_name_the_range(tmp_path):
    path = saved(tmp_path / "a.png", np.array([[100, 1100, 2100]], dtype=np.uint16))
    with pytest.raises(DataError, match=r"values 100 to 2100; .*image_window: \[100, 2100\]"):
        read_image(path)


@pytest.mark.case("C4")
def write_tiff(path, values, photometric, extra=()):
    """A TIFF of any number of bands, by hand: Pillow writes no such."""
    height, width, bands = values.shape
    data = values.astype(values.dtype.newbyteorder("<")).tobytes()
    bits = values.dtype.itemsize * 8
    entries = [(256, 4, [width]), (257, 4, [height]), (258, 3, [bits] * bands), (259, 3, [1]), (262, 3, [photometric]),
               (273, 4, [0]), (277, 3, [bands]), (278, 4, [height]), (279, 4, [len(data)])]  # fmt: skip
    entries += [(338, 3, list(extra))] if extra else []
    start = 8 + 2 + 12 * len(entries) + 4
    later, packed = b"", b""
    for tag, kind, numbers in entries:
        content = struct.pack(f"<{len(numbers)}{'H' if kind == 3 else 'I'}", *numbers)
        if len(content) > 4:
            value = struct.pack("<I", start + len(later))
            later += content
        else:
            value = content.ljust(4, b"\0")
        packed += struct.pack("<HHI", tag, kind, len(numbers)) + value
    packed = packed.replace(struct.pack("<HHII", 273, 4, 1, 0), struct.pack("<HHII", 273, 4, 1, start + len(later)))
    path.write_bytes(b"II*\0" + struct.pack("<IH", 8, len(entries)) + packed + b"\0" * 4 + later + data)


@pytest.mark.parametrize(
    ("bands", "kind", "photometric", "said"),
    [
        (4, np.uint8, 2, "has 4 bands, of which some are no colours"),
        (2, np.uint8, 1, "has 2 bands, of which some are no colours"),
        (4, np.uint16, 1, "is a TIFF of 4 bands of 16 bits, which is not read"),
        (5, np.uint8, 1, "is a TIFF of 5 bands of 8 bits, which is not read"),
    ],
)
def test_bands_are_never_dropped_without_a_word(tmp_path, bands, kind, photometric, said):
    values = np.random.default_rng(0).integers(0, np.iinfo(kind).max, (6, 5, bands)).astype(kind)
    write_tiff(tmp_path / "a.tif", values, photometric, [0] * (bands - (3 if photometric == 2 else 1)))
    with pytest.raises(DataError, match=rf"a\.tif: {said}"):
        read_image(tmp_path / "a.tif")


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_black_is_black_where_zero_is_white(tmp_path, kind):
    top = np.iinfo(kind).max
    values = np.array([[0, top], [top // 4, top // 2]], dtype=kind)
    write_tiff(tmp_path / "a.tif", values[..., None], 0)
    window = Window(0, top) if kind is np.uint16 else None
    expected = np.rint((top - values.astype(float)) * 255 / top)
    assert np.abs(read_image(tmp_path / "a.tif", 1, window)[..., 0] - expected).max() <= 1


def test_a_window_maps_sixteen_bits_linearly(tmp_path):
    ramp = np.arange(0, 4096, dtype=np.uint16).reshape(64, 64)
    read = read_image(saved(tmp_path / "a.png", ramp), channels=1, window=Window(1000, 3000))[..., 0]
    expected = np.interp(ramp, [1000, 3000], [0, 255])
    assert np.abs(read - expected).max() <= 0.5


def test_floats_that_are_not_finite_are_refused(tmp_path):
    path = saved(tmp_path / "a.tif", np.array([[0.0, np.nan]], dtype=np.float32))
    with pytest.raises(DataError, match="1 values that are not finite"):
        read_image(path, window=Window(0, 1))


@pytest.mark.case("C1")
@pytest.mark.parametrize("suffix", ["png", "jpg", "tif"])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 0.999])
def test_truncated_files_are_refused_by_name(tmp_path, suffix, share):
    path = saved(tmp_path / f"a.{suffix}", noise((64, 64, 3)))
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(DataError, match=rf"a\.{suffix}: .*(truncated|is empty|is no PNG).*; export it again"):
        read_image(path)


@pytest.mark.case("C3")
@pytest.mark.parametrize("content", [b"", b"<html>404</html>", b"\x89PNG\r\n\x1a\n"])
def test_what_is_no_image_is_refused(tmp_path, content):
    path = tmp_path / "a.png"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"a\.png: "):
        read_image(path)


@pytest.mark.parametrize("side", [8_000, 20_000, 40_000])
def test_decompression_bombs_are_refused_unread(tmp_path, side):
    path = tmp_path / "bomb.png"
    path.write_bytes(bomb(side, side))  # of fewer rows than declared: reading on would fail differently
    with pytest.raises(DataError, match="megapixels"):
        read_image(path)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_whatever_the_bytes_only_a_data_error_comes_out(tmp_path_factory, data):
    buffer = io.BytesIO()
    kind = data.draw(st.sampled_from(["PNG", "JPEG", "TIFF", "BMP"]))
    Image.fromarray(noise((9, 11, 3))).save(buffer, kind)
    content = bytearray(buffer.getvalue())
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "mutant"
    path.write_bytes(content)
    with suppress(DataError):
        assert read_image(path).dtype == np.uint8


# ---- masks


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.TIF"])
def test_reads_colour_masks(tmp_path, name):
    index = np.random.default_rng(1).integers(0, 3, (5, 7)).astype(np.uint8)
    assert np.array_equal(read_mask(saved(tmp_path / name, MAP.paint(index)), MAP), index)


def test_written_masks_are_palette_pictures_that_read_back(tmp_path):
    index = np.random.default_rng(1).integers(0, 3, (5, 7)).astype(np.uint8)
    write_mask(tmp_path / "deep" / "a.png", index, MAP)
    with Image.open(tmp_path / "deep" / "a.png") as picture:
        assert picture.mode == "P"
        assert np.array_equal(np.asarray(picture), index)
    assert np.array_equal(read_mask(tmp_path / "deep" / "a.png", MAP), index)
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["a.png"]


def test_reads_grey_masks_of_a_white_class(tmp_path):
    white = RgbMap.parse({"background": [0, 0, 0], "tumour": [255, 255, 255]})
    grey = np.array([[0, 255, 3], [250, 0, 255]], dtype=np.uint8)
    assert read_mask(saved(tmp_path / "a.png", grey), white).tolist() == [[0, 1, 0], [1, 0, 1]]
    assert read_mask(saved(tmp_path / "b.png", Image.fromarray(grey).convert("1", dither=0)), white)[0, 1] == 1


def test_reads_one_hot_and_index_archives(tmp_path):
    index = np.random.default_rng(1).integers(0, 3, (5, 7)).astype(np.uint8)
    np.savez_compressed(tmp_path / "a.npz", mask=np.eye(3)[index])
    np.savez_compressed(tmp_path / "b.npz", index)
    np.savez_compressed(tmp_path / "c.npz", mask=index[..., None] == 1)
    assert np.array_equal(read_mask(tmp_path / "a.npz", MAP), index)
    assert np.array_equal(read_mask(tmp_path / "b.npz", MAP), index)
    two = RgbMap.parse({"a": [0, 0, 0], "b": [1, 1, 1]})
    assert np.array_equal(read_mask(tmp_path / "c.npz", two), index == 1)


@pytest.mark.case("D10")
def test_archives_that_are_no_mask_are_refused(tmp_path):
    cases = {
        "pickle.npz": {"mask": np.array([{"a": 1}], dtype=object)},
        "shape.npz": {"mask": np.zeros((4, 4, 2))},
        "index.npz": {"mask": np.full((4, 4), 9)},
        "two.npz": {"a": np.zeros(1), "b": np.zeros(1)},
        "zeros.npz": {"mask": np.zeros((4, 4, 3))},
        "ones.npz": {"mask": np.ones((4, 4, 3))},
        "nan.npz": {"mask": np.full((4, 4, 3), np.nan)},
        "colours.npz": {"mask": MAP.paint(np.arange(4, dtype=np.uint8).reshape(2, 2) % 3)},
        "text.npz": {"mask": np.full((4, 4), "x")},
        "struct.npz": {"mask": np.zeros((3, 3), [("a", "i4")])},
    }
    for name, arrays in cases.items():
        np.savez(tmp_path / name, **arrays)
        with pytest.raises(DataError, match=name):
            read_mask(tmp_path / name, MAP)
    (tmp_path / "junk.npz").write_bytes(b"PK\x03\x04junk")
    with pytest.raises(DataError, match=r"junk\.npz"):
        read_mask(tmp_path / "junk.npz", MAP)


@pytest.mark.case("D2")
def test_anti_aliased_masks_are_read(tmp_path):
    index = np.zeros((64, 64), dtype=np.uint8)
    index[20:40, 20:40] = 1
    soft = Image.fromarray(MAP.paint(index)).resize((128, 128), Image.Resampling.BILINEAR)
    assert read_mask(saved(tmp_path / "a.png", soft), MAP).max() == 1


def test_a_solid_region_of_a_foreign_colour_is_named_with_its_count(tmp_path):
    mask = MAP.paint(np.zeros((64, 64), dtype=np.uint8))
    mask[3:8, 5:9] = [250, 250, 0]
    message = r"a\.png: 20 pixels of colour \[250, 250, 0\], such as row 3, column 5, .*lung \[0, 0, 255\]"
    with pytest.raises(DataError, match=message):
        read_mask(saved(tmp_path / "a.png", mask), MAP)


def test_sixteen_bit_masks_are_refused(tmp_path):
    with pytest.raises(DataError, match="must have 8 bits"):
        read_mask(saved(tmp_path / "a.png", np.zeros((4, 4), dtype=np.uint16)), MAP)


# ---- resizing


def test_resized_labels_hold_no_class_that_was_not_there():
    index = np.zeros((60, 90), dtype=np.uint8)
    index[10:50, 20:70] = 2
    for size in ((17, 23), (120, 180), (33, 200)):
        assert set(np.unique(resize_mask(index, size))) == {0, 2}


def test_resizing_to_the_same_size_changes_nothing():
    image = noise((5, 7, 3))
    assert resize_image(image, (5, 7)) is image
    assert resize_mask(image[..., 0], (5, 7)).shape == (5, 7)


def test_shrinking_an_image_averages():
    image = np.zeros((64, 64, 1), dtype=np.uint8)
    image[::2] = 255
    assert np.abs(resize_image(image, (8, 8)).astype(int) - 127)[1:-1].max() <= 8


# ---- folders


@pytest.mark.case("D6")
def test_pairs_by_stem_in_order_of_names_whatever_the_listing_says(tmp_path, monkeypatch):
    names = ["1 (26)", "b c", "é", "e\u0301x", "日本", "-lead", "%d", "[x]"]
    for name in names:
        for folder, suffix in (("images", "JPG"), ("masks", "png")):
            (tmp_path / folder).mkdir(exist_ok=True)
            saved(tmp_path / folder / f"{name}.{suffix}", noise((4, 4, 3)), format="PNG")
    listed = Path.iterdir
    monkeypatch.setattr(Path, "iterdir", lambda self: iter(sorted(listed(self), reverse=True)))
    pairs = list_pairs(tmp_path)
    assert [p.image.stem for p in pairs] == sorted(names)
    assert all(p.image.stem == p.mask.stem for p in pairs)


@pytest.mark.case("D6")
def test_both_spellings_of_a_letter_and_any_case_are_one_stem(tmp_path):
    for name in ("images/e\u0301.png", "masks/\u00e9.png", "images/IMG_1.JPG", "masks/img_1.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        saved(tmp_path / name, noise((4, 4, 3)), format="PNG")
    assert [(p.image.name, p.mask.name) for p in list_pairs(tmp_path)] == [
        ("IMG_1.JPG", "img_1.png"), ("e\u0301.png", "\u00e9.png")]  # fmt: skip


@pytest.mark.case("D5")
@pytest.mark.parametrize("twin", ["A.jpg", "a.png"])
def test_two_files_that_would_be_one_elsewhere_are_refused(tmp_path, twin):
    saved(tmp_path / "A.png", noise((4, 4)))
    saved(tmp_path / twin, noise((4, 4)))
    if len(list(tmp_path.iterdir())) == 1:
        pytest.skip("this file system does not tell them apart")
    with pytest.raises(DataError, match="has the same stem as"):
        list_files(tmp_path)


@pytest.mark.case("D7")
def test_links_are_followed_out_of_the_folder_too(tmp_path):
    saved(tmp_path / "a.png", noise((4, 4, 3)))
    for kind in ("images", "masks"):
        (tmp_path / "data" / kind).mkdir(parents=True)
        (tmp_path / "data" / kind / "a.png").symlink_to("../../a.png")
    assert len(list_pairs(tmp_path / "data")) == 1


def test_the_folders_mistakes_are_named(tmp_path):
    with pytest.raises(DataError, match="no such folder"):
        list_files(tmp_path / "nowhere")
    with pytest.raises(DataError, match="no image in this folder"):
        list_files(tmp_path)
    saved(tmp_path / "a.png", noise((4, 4)))
    with pytest.raises(DataError, match="is a file, not a folder"):
        list_files(tmp_path / "a.png")
    saved(tmp_path / "a.jpg", noise((4, 4)))
    with pytest.raises(DataError, match=r"has the same stem as a\.jpg"):
        list_files(tmp_path)


@pytest.mark.parametrize(("lonely", "missing"), [("images", "mask"), ("masks", "image")])
def test_a_file_without_partner_is_named(tmp_path, lonely, missing):
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
        saved(tmp_path / folder / "a.png", noise((4, 4)))
    saved(tmp_path / lonely / "b.png", noise((4, 4)))
    with pytest.raises(DataError, match=rf"{lonely}/b\.png: no {missing} of that stem in .*{missing}s"):
        list_pairs(tmp_path)


@pytest.mark.case("D3")
def test_headers_alone_show_that_sizes_differ(tmp_path):
    image, mask = saved(tmp_path / "a.png", noise((5, 7))), saved(tmp_path / "b.png", noise((7, 5)))
    with pytest.raises(DataError, match=r"b\.png: mask is 7x5 px .* but its image is 5x7"):
        check_pair(Pair(image, mask))


@pytest.mark.parametrize("quality", [60, 75, 90])
def test_a_jpeg_mask_is_read_by_nearest_colour_unless_a_class_is_missing_from_the_map(tmp_path, quality):
    index = draw_slice(3, 0.6, 96, 137)[1]
    path = tmp_path / "m.jpg"
    Image.fromarray(PHANTOM_MAP.paint(index)).save(path, quality=quality)
    assert (read_mask(path, PHANTOM_MAP) == index).mean() > 0.98
    without_heart = RgbMap.parse({k: v for k, v in PHANTOM_MAP.to_dict().items() if k != "heart"})
    with pytest.raises(DataError, match="are no class of `rgb_map`"):
        read_mask(path, without_heart)
