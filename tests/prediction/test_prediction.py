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

from flexunet_pl.cli.main import main
from flexunet_pl.io.images import read_image

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
        window = () if "--data.volume.window" in args else ("--data.volume.window", "slice")
        got = main([
            "predict", "--ckpt_path", "lively.ckpt", "--data.predict_dir", source,
            "--prediction.output_dir", out, "--data.num_workers", "0", *window, *args,
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
    assert sorted(p.name for p in (workspace / "out").iterdir()) == sorted(
        [*good, "v.nii.gz", "prediction.json", "predicted.csv", "confidence.csv"]
    )
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


def test_a_folder_of_masks_serves_one_source_and_one_setting(workspace, predict, phantoms):
    images = sorted((phantoms / "test" / "images").iterdir())
    shutil.copy(images[0], workspace / "in" / "001.png")
    predict()
    first = (workspace / "out" / "001.png").read_bytes()
    shutil.copy(images[1], workspace / "in" / "001.png")
    assert "were there already" not in predict()
    assert (workspace / "out" / "001.png").read_bytes() != first
    shutil.copy(images[2], workspace / "in" / "002.png")
    predict("--inference.tta", "flips", "--prediction.overwrite", "true", "--trainer.limit_predict_batches", "0")
    predict("--inference.tta", "flips")
    predict("--inference.tta", "flips", out="fresh")
    for name in ("001.png", "002.png"):
        assert (workspace / "out" / name).read_bytes() == (workspace / "fresh" / name).read_bytes()


@pytest.mark.parametrize("damage", ["cut", "header", "junk", "empty"])
@pytest.mark.parametrize("which", [0, SHAPE[0] - 1])
def test_a_damaged_slice_of_a_series_is_not_left_out_in_silence(workspace, predict, damage, which):
    write_series(workspace / "in" / "s", volume())
    path = workspace / "in" / "s" / f"{which}.dcm"
    content = path.read_bytes()
    cut = {"cut": content[:-600], "header": content[:300], "junk": b"junk", "empty": b""}[damage]
    path.write_bytes(cut)
    said = predict(status=2)
    assert "in/s" in said
    assert "failed: " in said
    assert not list((workspace / "out").glob("*.nii.gz"))


def test_files_beside_a_series_and_series_without_suffixes_are_predicted_too(workspace, predict):
    write_series(workspace / "in" / "s", volume())
    for path in (workspace / "in" / "s").iterdir():
        path.rename(path.with_name(f"1.2.840.{path.stem}"))
    (workspace / "in" / "s" / "DICOMDIR").write_bytes(bytes(128) + b"DICM")
    Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save("in/s/extra.png")
    predict()
    assert (workspace / "out" / "s.nii.gz").is_file()
    assert (workspace / "out" / "s" / "extra.png").is_file()
    assert "name the folder" in predict(source="in/s/1.2.840.0", out="one", status=2)


def test_a_series_without_the_patients_data_has_a_dicom_seg_too(workspace, predict):
    write_series(workspace / "in" / "s", volume())
    strip(workspace / "in" / "s", "PatientID", "PatientName", "PatientBirthDate", "PatientSex", "StudyDate", "StudyID")
    predict("--prediction.dicom_seg", "true")
    written = pydicom.dcmread(workspace / "out" / "s.seg.dcm")
    assert written.PatientID == ""
    assert written.SegmentSequence


def test_a_series_of_which_no_dicom_seg_can_be_made_costs_that_alone(workspace, predict, phantoms):
    write_series(workspace / "in" / "s", volume())
    strip(workspace / "in" / "s", "StudyInstanceUID")
    shutil.copy(next((phantoms / "test" / "images").iterdir()), workspace / "in" / "z.png")
    assert "no DICOM SEG can be made of it" in predict("--prediction.dicom_seg", "true", status=1)
    assert (workspace / "out" / "s.nii.gz").is_file()
    assert (workspace / "out" / "z.png").is_file()


def strip(folder, *names):
    for path in folder.iterdir():
        header = pydicom.dcmread(path)
        for name in names:
            if name in header:
                delattr(header, name)
        header.save_as(path)


def test_names_that_collide_and_names_that_are_long(workspace, predict):
    np.save("in/a.npy", values())
    (workspace / "in" / "a" / "overlays").mkdir(parents=True)
    Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save("in/a/overlays/0001.png")
    assert "has the name of one of our own" in predict(status=2)
    shutil.rmtree("in/a")
    np.save("in/a.uncertainty.npy", values())
    assert "has the name of one of our own" in predict(status=2)
    (workspace / "in" / "a.uncertainty.npy").unlink()
    Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(f"in/{'a' * 248}.png")
    predict()
    assert (workspace / "out" / f"{'a' * 248}.png").is_file()


def test_negative_sizes_and_endless_windows_are_refused(workspace, predict):
    header = "{'descr': '<i2', 'fortran_order': False, 'shape': (-1, -5, 2), }".ljust(117) + "\n"
    content = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode() + bytes(400)
    (workspace / "in" / "a.npy").write_bytes(content)
    assert "a.npy: " in predict(status=2)
    np.save("in/a.npy", np.full(SHAPE, 1e308))
    assert "not finite, or beyond" in predict(status=2)
    assert "the lower one first" in predict("--data.volume.window", "[-.inf, .inf]", status=2)


def test_a_window_serves_images_of_16_bits_too(workspace, predict):
    Image.fromarray((np.arange(900).reshape(30, 30) * 4).astype(np.uint16)).save("in/a.png")
    assert "say how to scale it" in predict(status=2)
    predict("--data.volume.window", "[0, 4000]")
    with Image.open("out/a.png") as mask:
        assert mask.size == (30, 30)


def test_a_window_that_nobody_knows_is_asked_for(workspace, predict, mistake):
    np.save("in/a.npy", values())
    command = ["predict", "--ckpt_path", "lively.ckpt", "--data.predict_dir", "in", "--data.num_workers", "0"]
    said = mistake(*command, "--prediction.output_dir", "out")
    assert "in/a.npy: the checkpoint does not say which values of a volume become black and white" in said
    assert "--data.volume.window slice" in said
    assert not (workspace / "out").exists()
