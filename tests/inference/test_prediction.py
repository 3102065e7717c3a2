"""flexunet predict: folder trees, volumes and what is written of them; broken files, and going on."""

import json
import shutil

import nibabel
import numpy as np
import pydicom
import pytest
import SimpleITK
import torch
from PIL import Image

from flexunet_pl.__main__ import main
from flexunet_pl.image_io import read_image

ANGLE = 0.3
OBLIQUE = (np.cos(ANGLE), -np.sin(ANGLE), 0, np.sin(ANGLE), np.cos(ANGLE), 0, 0, 0, 1)
SHAPE = (3, 20, 28)


@pytest.fixture
def predict(workspace, trained, capsys):
    checkpoint = torch.load(trained / "checkpoints" / "best.ckpt", weights_only=True)
    weights = {key: w for key, w in checkpoint["state_dict"].items() if key.startswith("network.")}
    for key, w in weights.items():  # so that all classes are predicted, whatever two epochs have taught
        noise = torch.randn_like(w) * (2 / w[0].numel()) ** 0.5 if w.ndim == 4 else torch.zeros_like(w)
        checkpoint["state_dict"][key] = noise - noise.mean(dim=1, keepdim=True) if w.ndim == 4 else noise
    torch.save(checkpoint, "lively.ckpt")

    def run(*args, status=0, source="in", out="out"):
        capsys.readouterr()
        got = main([
            "predict", "--ckpt_path", "lively.ckpt", "--data.predict_dir", source,
            "--prediction.output_dir", out, "--data.num_workers", "0", *args,
        ])  # fmt: skip
        said = capsys.readouterr().err
        assert got == status, said
        return said

    (workspace / "in").mkdir()
    return run


def values(seed=0):
    return np.random.default_rng(seed).integers(-500, 500, SHAPE).astype(np.int16)


def volume(orientation="LPS", seed=0):
    image = SimpleITK.GetImageFromArray(values(seed))
    image.SetSpacing((0.7, 0.8, 2.5))
    image.SetOrigin((-11.0, 22.0, 33.0))
    image.SetDirection(OBLIQUE)
    return SimpleITK.DICOMOrient(image, orientation)


def write_series(folder, image):
    folder.mkdir()
    writer = SimpleITK.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    cosines = [image.GetDirection()[k] for k in (0, 3, 6, 1, 4, 7)]
    for i in range(image.GetDepth()):
        one = image[:, :, i]
        tags = {
            "0008|0016": "1.2.840.10008.5.1.4.1.1.2", "0008|0018": f"1.2.3.5.{i}", "0008|0060": "CT",
            "0010|0010": "Doe^Jane", "0010|0020": "p", "0020|000d": "1.2.3.3", "0020|000e": "1.2.3.2",
            "0020|0013": str(i), "0020|0032": "\\".join(map(str, image.TransformIndexToPhysicalPoint((0, 0, i)))),
            "0020|0037": "\\".join(map(str, cosines)), "0020|0052": "1.2.3.4", "0018|0050": "2.5",
            "0028|1052": "0", "0028|1053": "1",
        }  # fmt: skip
        for key, value in tags.items():
            one.SetMetaData(key, value)
        writer.SetFileName(str(folder / f"{i}.dcm"))
        writer.Execute(one)


def test_folders_below_are_predicted_too_and_keep_their_place(workspace, predict, phantoms):
    shutil.copytree(phantoms / "test" / "images", workspace / "in" / "a" / "b")
    first = sorted((workspace / "in" / "a" / "b").iterdir())[0]
    shutil.copy(first, workspace / "in" / "top.png")
    (workspace / "in" / ".hidden").mkdir()
    predict("--prediction.overlay", "true")
    written = {p.relative_to(workspace / "out").as_posix() for p in (workspace / "out").rglob("*.png")}
    inside = {f"a/b/{p.stem}.png" for p in (workspace / "in" / "a" / "b").iterdir()} | {"top.png"}
    assert written == inside | {f"overlays/{name}" for name in inside}
    assert np.array_equal(*(Image.open(workspace / "out" / n) for n in ("top.png", f"a/b/{first.stem}.png")))


@pytest.mark.parametrize("code", ["LPS", "RAS", "PIR", "ILA"])
def test_a_label_volume_lies_where_its_volume_lies(workspace, predict, code):
    SimpleITK.WriteImage(volume(code), "in/v.nii.gz")
    predict("--data.volume.window", "[-500, 500]")
    theirs, ours = (nibabel.load(workspace / d / "v.nii.gz") for d in ("in", "out"))
    np.testing.assert_allclose(ours.affine, theirs.affine, rtol=0, atol=1e-6)
    assert ours.shape == theirs.shape
    one, other = (SimpleITK.ReadImage(f"{d}/v.nii.gz") for d in ("in", "out"))
    for what in ("GetSpacing", "GetOrigin", "GetDirection"):
        np.testing.assert_allclose(getattr(one, what)(), getattr(other, what)(), rtol=0, atol=1e-6)
    assert ours.get_data_dtype() == np.uint8


def test_labels_are_the_masks_of_the_slices_whatever_the_format_and_the_order(workspace, predict):
    SimpleITK.WriteImage(volume("RAS"), "in/a.nii.gz")
    SimpleITK.WriteImage(volume("PIR"), "in/b.mha")
    SimpleITK.WriteImage(volume("LPS"), "in/c.nrrd")
    write_series(workspace / "in" / "series", volume())
    np.save("in/d.npy", values())
    h5py = pytest.importorskip("h5py")
    with h5py.File("in/e.h5", "w") as file:
        file["scan"] = values()
    predict("--data.volume.window", "[-500, 500]", "--prediction.slices", "true", "--prediction.video", "gif",
            "--prediction.dicom_seg", "true")  # fmt: skip
    expected = np.load("out/d.npy")
    assert expected.shape == SHAPE
    assert len(np.unique(expected)) > 1
    assert np.array_equal(np.load("out/e.npy"), expected)
    for name in ("a", "b", "c", "series"):
        back = SimpleITK.DICOMOrient(SimpleITK.ReadImage(f"out/{name}.nii.gz"), "LPS")
        assert np.array_equal(SimpleITK.GetArrayFromImage(back), expected), name
    for i in range(SHAPE[0]):
        with Image.open(f"out/a/masks/{i + 1:04}.png") as mask:
            assert np.array_equal(mask, expected[i])
        grey = np.rint((values()[i].astype(float) + 500) * 255 / 1000)
        np.testing.assert_allclose(read_image(workspace / f"out/a/slices/{i + 1:04}.png")[..., 0], grey, atol=1)
    with Image.open("out/a/overlays.gif") as film:
        assert film.n_frames == SHAPE[0]
    segmentation = pydicom.dcmread("out/series.seg.dcm")
    assert [s.SegmentLabel for s in segmentation.SegmentSequence] == ["trachea", "heart", "lung"]
    assert {
        r.ReferencedSOPInstanceUID for r in segmentation.ReferencedSeriesSequence[0].ReferencedInstanceSequence
    } == {f"1.2.3.5.{i}" for i in range(SHAPE[0])}
    voxels = segmentation.pixel_array.reshape(-1, *SHAPE[1:]).sum()
    assert voxels == np.count_nonzero(expected)


def test_axis_and_rotation_are_undone(workspace, predict):
    np.save("in/a.npy", values())
    predict("--data.volume.window", "[-500, 500]")
    shutil.rmtree("in")
    (workspace / "in").mkdir()
    stacked = np.stack([np.rot90(plane, -1) for plane in values()], axis=2)
    np.save("in/b.npy", stacked)
    predict("--data.volume.window", "[-500, 500]", "--data.volume.axis", "2", "--data.volume.rotation", "90",
            out="out2")  # fmt: skip
    plain, undone = np.load("out/a.npy"), np.load("out2/b.npy")
    assert undone.shape == stacked.shape
    assert np.array_equal(np.stack([np.rot90(undone[..., i]) for i in range(SHAPE[0])]), plain)


def test_a_broken_file_is_named_the_rest_goes_on_and_a_second_run_does_what_is_left(workspace, predict, phantoms):
    for path in (phantoms / "test" / "images").iterdir():
        shutil.copy(path, workspace / "in")
    good = sorted(p.name for p in (workspace / "in").iterdir())
    (workspace / "in" / "broken.png").write_bytes(b"junk")
    SimpleITK.WriteImage(volume(), "in/v.nii")
    content = (workspace / "in" / "v.nii").read_bytes()
    (workspace / "in" / "cut.nii").write_bytes(content[:-100])
    (workspace / "in" / "not.npy").write_bytes(b"\x93NUMPY junk")
    said = predict(status=1)
    for name in ("broken.png", "cut.nii", "not.npy"):
        assert f"failed: in/{name}: " in said
        assert said.count(f"in/{name}: ") == 1
    assert "3 could not be predicted" in said
    assert sorted(p.name for p in (workspace / "out").iterdir()) == sorted([*good, "v.nii.gz", "prediction.json"])
    written = {p.name: p.stat().st_mtime_ns for p in (workspace / "out").iterdir() if p.suffix == ".png"}
    (workspace / "out" / good[0]).unlink()
    (workspace / "in" / "broken.png").unlink()
    (workspace / "in" / "not.npy").unlink()
    (workspace / "in" / "cut.nii").unlink()
    assert "(3 were there already)" in predict()
    after = {p.name: p.stat().st_mtime_ns for p in (workspace / "out").iterdir() if p.suffix == ".png"}
    assert {n for n in after if after[n] != written[n]} == {good[0]}
    assert "(4 were there already)" in predict()


def test_other_settings_and_folders_in_the_way_are_refused(workspace, predict, phantoms):
    shutil.copytree(phantoms / "test" / "images", workspace / "in" / "x")
    predict()
    before = json.loads((workspace / "out" / "prediction.json").read_text())
    assert "holds masks made with another inference" in predict("--inference.tta", "flips", status=2)
    assert "lies in the folder of the images" in predict(status=2, out="in/masks")
    (workspace / "in" / "x").rename(workspace / "in" / "overlays")
    assert "has the name of one of our own" in predict(status=2, out="out2")
    assert json.loads((workspace / "out" / "prediction.json").read_text()) == before


def test_large_images_are_tiled_and_uncertainty_is_a_picture(workspace, predict):
    noise = np.random.default_rng(0).integers(0, 256, (70, 90, 3), dtype=np.uint8)
    Image.fromarray(noise).save("in/large.png")
    Image.fromarray(noise[:32, :32]).save("in/small.png")
    predict()
    predict("--inference.tiled", "true", "--inference.mc_dropout", "3", out="out2")
    predict("--inference.tiled", "true", out="out3")
    masks = {d: np.asarray(Image.open(f"{d}/large.png")) for d in ("out", "out2", "out3")}
    assert masks["out"].shape == masks["out3"].shape == (70, 90)
    assert (masks["out"] != masks["out3"]).any()
    assert np.array_equal(Image.open("out/small.png"), Image.open("out3/small.png"))
    with Image.open("out2/uncertainty/large.png") as picture:
        assert (picture.mode, picture.size) == ("L", (90, 70))
        assert np.asarray(picture).std() > 0


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (np.zeros((2, 3)), "expected numbers in three dimensions"),
        (np.array([[[{}]]], dtype=object), "expected numbers in three dimensions"),
        (np.full((2, 3, 4), np.nan), "are not finite"),
    ],
)
def test_arrays_that_are_no_volumes_are_refused(workspace, predict, content, why):
    np.save("in/a.npy", content, allow_pickle=True)
    assert why in predict(status=2)


def test_hdf5_files_are_read_with_care(workspace, predict):
    h5py = pytest.importorskip("h5py")
    with h5py.File("in/two.h5", "w") as file:
        file["a"] = file["b"] = values()
        file["link"] = h5py.ExternalLink("elsewhere.h5", "/x")
        file.create_dataset("huge", (10**4, 10**4, 10), dtype="u1", chunks=(1000, 1000, 1), compression="gzip")
    assert "holds 3 arrays" in predict(status=2)
    assert "refused unread" in predict("--data.volume.dataset", "huge", status=2)
    assert "links are not followed" in predict("--data.volume.dataset", "link", status=2)
    predict("--data.volume.dataset", "a", out="good")
    assert np.load("good/two.npy").shape == SHAPE
