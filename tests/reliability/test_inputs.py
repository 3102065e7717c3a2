"""Tables C, D, F and G of the fault programme: every verb, and the runtime, has the same verdict on the same file."""

import io
import json
import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from flexunet_pl.common.errors import DataError
from flexunet_pl.io.images import read_image, write_image
from flexunet_runtime.images import decode_image
from tests.handmade import bomb

RGB_MAP = "{(0, 0, 0): 0, (255, 0, 0): 1, (0, 255, 0): 2, (0, 0, 255): 3}"
NOISE = np.random.default_rng(137).integers(0, 256, (64, 64, 3), dtype=np.uint8)


def encoded(array, kind, **options):
    buffer = io.BytesIO()
    (array if isinstance(array, Image.Image) else Image.fromarray(array)).save(buffer, format=kind, **options)
    return buffer.getvalue()


def flipped(content):
    middle = len(content) // 2
    return content[:middle] + bytes(b ^ 0xFF for b in content[middle : middle + 64]) + content[middle + 64 :]


def turned(orientation):
    made = Image.Exif()
    made[0x0112] = orientation
    return made


def images():
    """Name of each case: suffix, content, whether it is read."""
    suffixes = {"PNG": ".png", "JPEG": ".jpg", "TIFF": ".tif"}
    whole = {kind: encoded(NOISE, kind) for kind in suffixes}
    for kind, content in whole.items():
        for share in (0, 0.3, 0.9, 0.999):
            yield f"C1 {kind} cut at {share:.1%}", suffixes[kind], content[: int(len(content) * share)], False
    yield "C2 PNG with 64 bytes flipped", ".png", flipped(whole["PNG"]), False
    yield "C3 page of a web server", ".png", b"<html>404</html>", False
    yield "C3 JPEG named .png", ".png", whole["JPEG"], True
    ramp = np.tile(np.linspace(0, 65535, 64).astype(np.uint16), (64, 1))
    yield "C4 16 bits", ".png", encoded(ramp, "PNG"), False
    yield "C4 12 bits in 16", ".tif", encoded(ramp >> 4, "TIFF"), False
    for alpha, good in ((255, True), (254, False)):
        glass = np.dstack([NOISE, np.full((64, 64), alpha, np.uint8)])
        yield f"C5 alpha of {alpha}", ".png", encoded(glass, "PNG"), good
    for mode in ("P", "L", "1"):
        yield f"C6 mode {mode}", ".png", encoded(Image.fromarray(NOISE).convert(mode), "PNG"), True
    for kind in ("JPEG", "TIFF"):
        yield f"C7 CMYK {kind}", suffixes[kind], encoded(Image.new("CMYK", (64, 64)), kind), False
    for orientation in range(1, 9):
        yield f"C8 orientation {orientation}", ".jpg", encoded(NOISE, "JPEG", exif=turned(orientation)), True
    frames = [Image.fromarray(NOISE), Image.fromarray(255 - NOISE)]
    for kind, suffix in (("GIF", ".png"), ("PNG", ".png"), ("TIFF", ".tif")):
        content = encoded(frames[0], kind, save_all=True, append_images=frames[1:])
        yield f"C9 two frames in {kind}", suffix, content, False
    for value in (np.nan, np.inf):
        values = np.full((64, 64), 1.5, np.float32)
        values[3, 4] = value
        yield f"C10 float with {value}", ".tif", encoded(Image.fromarray(values), "TIFF"), False
    for side in (10_000, 20_000, 40_000):
        yield f"C11 bomb of {side}x{side}", ".png", bomb(side, side), False


IMAGES = list(images())


@pytest.mark.parametrize(
    ("suffix", "content", "good"),
    [pytest.param(*case, id=name, marks=pytest.mark.case(name.split()[0])) for name, *case in IMAGES],
)
def test_the_content_of_an_image_has_the_verdict_that_its_file_has(tmp_path, suffix, content, good):
    path = tmp_path / f"a{suffix}"
    path.write_bytes(content)
    one, other = verdict(read_image, path), verdict(decode_image, content)
    if good:
        assert np.array_equal(one, other)
    else:
        assert one.startswith(f"{path}: ")
        assert "\n" not in one
        assert other == one.replace(str(path), "image")


def verdict(read, source):
    try:
        return read(source)
    except DataError as error:
        return str(error)


def tree(folder):
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.reliability
def test_every_verb_has_that_verdict_too(zygote, place, phantoms, trained, count):
    best = trained / "checkpoints" / "best.ckpt"
    for number, (name, suffix, content, good) in enumerate(IMAGES):
        folder = place(f"case_{number}")
        data = folder / "data"
        shutil.copytree(phantoms, data)
        (data / "train" / "images" / "000_00.png").unlink()
        bad = data / "train" / "images" / f"000_00{suffix}"
        bad.write_bytes(content)
        before = tree(data)
        fit = ["fit", "-c", "c.yaml", "--data.root", data, "--trainer.max_epochs", 1]
        predict = ["predict", "--ckpt_path", best, "--data.predict_dir", data / "train" / "images",
                   "--data.num_workers", 0, "--prediction.output_dir", "masks"]  # fmt: skip
        check = ["check", data, "--workers", 0, "--rgb-map", RGB_MAP]  # fmt: skip
        held = 0
        for command, status in ((fit, 2), (predict, 1), (check, 1)):
            job = zygote.start(*command, cwd=folder)
            ended, said = job.wait(), job.said + Path(job.log + ".out").read_text(errors="replace")
            named = bad.name in said.replace("\n", "")
            right = ended == 0 if good else ended == status and named
            if command is check and good:
                right = ended in {0, 1}  # noise under a mask may be a finding, but no file that cannot be used
            held += right and "Traceback" not in said
        same = tree(data) == before
        case, _, what = name.partition(" ")
        count(case, held if same else 0, 3, f"{what}: fit, predict and check agree, files unchanged")


# ---- D: masks and folders


def spoil_color(data):
    path = data / "train" / "masks" / "000_00.png"
    mask = read_image(path).copy()
    mask[10:30, 10:30] = [255, 255, 0]
    write_image(path, mask)


def spoil_size(data):
    write_image(data / "train" / "masks" / "000_00.png", np.zeros((63, 64, 3), np.uint8))


def spoil_objects(data):
    path = data / "train" / "masks" / "000_00.png"
    path.unlink()
    np.savez(path.with_suffix(".npz"), mask=np.array([{"a": 1}], dtype=object))


MASKS = {
    "D1 a colour of no class": (spoil_color, "000_00"),
    "D3 a mask of another size": (spoil_size, "000_00"),
    "D4 a missing mask": (lambda d: (d / "train" / "masks" / "000_00.png").unlink(), "000_00"),
    "D4 a missing image": (lambda d: (d / "train" / "images" / "000_00.png").unlink(), "000_00"),
    "D4 an empty folder": (lambda d: [p.unlink() for p in (d / "train" / "images").iterdir()], "images"),
    "D4 no folder": (lambda d: shutil.rmtree(d / "train" / "masks"), "masks"),
    "D5 one stem twice": (
        lambda d: shutil.copy(d / "train" / "images" / "000_00.png", d / "train" / "images" / "000_00.bmp"), "000_00"),
    "D7 a link to nothing": (
        lambda d: (Path(d / "train" / "images" / "000_00.png").unlink(),
                   Path(d / "train" / "images" / "000_00.png").symlink_to("nowhere.png")), "000_00"),
    "D7 a link to itself": (
        lambda d: (Path(d / "train" / "images" / "000_00.png").unlink(),
                   Path(d / "train" / "images" / "000_00.png").symlink_to("000_00.png")), "000_00"),
    "D10 an array of objects": (spoil_objects, "000_00"),
}  # fmt: skip


@pytest.mark.reliability
def test_masks_and_folders_are_refused_by_name(zygote, place, phantoms, count):
    for number, (name, (spoil, needle)) in enumerate(MASKS.items()):
        folder = place(f"case_{number}")
        data = folder / "data"
        shutil.copytree(phantoms, data)
        spoil(data)
        before = tree(data)
        check = ["check", data, "--workers", 0, "--rgb-map", RGB_MAP]
        held = 0
        for command, status in ((["fit", "-c", "c.yaml", "--data.root", data], {2}), (check, {1, 2})):
            job = zygote.start(*command, cwd=folder)
            ended, said = job.wait(), job.said + Path(job.log + ".out").read_text(errors="replace")
            held += ended in status and needle in said and "Traceback" not in said
        case, _, what = name.partition(" ")
        count(case, held if tree(data) == before else 0, 2, f"{what}: fit and check name it, files unchanged")


# ---- F: configurations


TYPOS = [
    ["--trainer.max_epohcs", "3"], ["--trainer.max_epochs", "three"], ["--trainer.max_epochs", "[1]"],
    ["--trainer.precison", "16"], ["--trainer.precision", "17-mixed"], ["--trainer.devices", "none"],
    ["--trainer.accelerator", "cpuu"], ["--trainer.gradient_clip_val", "much"], ["--model.image_size", "32"],
    ["--model.image_size", "[32]"], ["--model.image_size", "[30, 32]"], ["--model.image_sizes", "[32, 32]"],
    ["--model.rgb_map", "{a: [0, 0]}"], ["--model.rgb_map", "{a: [0, 0, 0], b: [0, 0, 0]}"],
    ["--model.rgb_map", "{a: [0, 0, 300], b: [1, 1, 1]}"], ["--model.rgb_map", "red"], ["--model.in_channels", "2"],
    ["--model.image_window", "[5, 1]"], ["--model.network", "flexunet_pl.FlexUnet"],
    ["--model.network.init_args.num_layers", "many"], ["--model.network.init_args.base_kernels", "[4, 4]"],
    ["--model.optimizer", "torch.optim.Adams"], ["--model.loss", "torch.nn.Conv2d"], ["--data.batch_size", "0"],
    ["--data.batch_sise", "2"], ["--data.num_workers", "-1"], ["--data.cache", "disc"], ["--data.root", "/nowhere"],
    ["--checkpoint.monitor", "val/los"], ["--finite_loss.skip", "-2"],
]  # fmt: skip


@pytest.mark.reliability
def test_thirty_typos_are_named(zygote, place, count):
    folder, held = place("run"), 0
    for typo in TYPOS:
        job = zygote.start("fit", "-c", "c.yaml", *typo, cwd=folder)
        ended, said = job.wait(), job.said
        lines = [line for line in said.splitlines() if line.startswith("flexunet: ")]
        key = typo[0].removeprefix("--").split(".")[-1]
        good = ended == 2 and len(lines) == 1 and "Traceback" not in said and (key in said or typo[1] in said)
        if not good:
            print(typo, ended, said[-500:])  # noqa: T201 - shown where it fails
        held += good
    count("F1", held, len(TYPOS), "typos and wrong types: one line with the key, exit 2")


@pytest.mark.reliability
def test_nothing_that_a_configuration_names_is_run(zygote, place, count):
    folder, held = place("run"), 0
    (folder / "evilmod.py").write_text("open('canary', 'w')\nclass Net: pass\n")
    bomb = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"{n}: &{n} [{', '.join([f'*{m}'] * 9)}]\n" for m, n in zip("abcdefgh", "bcdefghi", strict=True)
    )
    (folder / "bomb.yaml").write_text(bomb)
    (folder / "python.yaml").write_text("model: !!python/object/apply:os.system ['touch canary']\n")
    attacks = [["--model.network", "evilmod.Net"], ["--model.optimizer", "os.system"], ["-c", "python.yaml"],
               ["--model.network", "posix.system"], ["--data.train_transform", "evilmod.Net"], ["-c", "bomb.yaml"],
               ["--trainer.callbacks+", "evilmod.Net"], ["--trainer.logger", "evilmod.Net"],
               ["--model.loss", "builtins.exec"], ["--model.scheduler", "subprocess.run"]]  # fmt: skip
    for attack in attacks:
        job = zygote.start("fit", "-c", "c.yaml", *attack, cwd=folder, env={"PYTHONPATH": str(folder)},
                           before="import sys; sys.path.insert(0, '.')")  # fmt: skip
        good = job.wait() == 2 and "Traceback" not in job.said and not (folder / "canary").exists()
        if not good:
            print(attack, job.said[-500:])  # noqa: T201 - shown where it fails
        held += good
    count("F2", held, len(attacks), "class paths and YAML that would run code: exit 2, nothing imported or run")


INI = ["x = __import__('os').system('touch canary')", "x = (lambda: open('canary', 'w'))()", "x = " + "[" * 300,
       "x = " + "9" * 5000, "x = open('canary', 'w')", "x = [c for c in ().__class__.__base__.__subclasses__()]",
       "x = f'{open(1)}'", "x = 1 if 1 else 2", "x = a.b.c", "x = {**{}}"]  # fmt: skip


@pytest.mark.reliability
def test_nothing_in_an_ini_file_is_evaluated(zygote, place, count):
    folder, held = place("run"), 0
    for i, line in enumerate(INI):
        (folder / f"{i}.config").write_text(f"[model]\nimage_width = 32\nnum_classes {line.removeprefix('x')}\n")
        job = zygote.start("import-config", f"{i}.config", "--output", f"{i}.yaml", cwd=folder)
        ended, said = job.wait(), job.said
        good = ended == 2 and "line 3" in said and "Traceback" not in said and not (folder / "canary").exists()
        if not good:
            print(line[:50], ended, said[-300:])  # noqa: T201 - shown where it fails
        held += good and not (folder / f"{i}.yaml").exists()
    count("F3", held, len(INI), "expressions in an INI file: exit 2 with the line, nothing evaluated, no file")


# ---- G: checkpoints


class Canary:
    def __reduce__(self):
        return (os.system, ("touch canary",))


def hostile(best, folder):
    state = torch.load(best, weights_only=True)
    torch.save({**state, "optimizer_states": [Canary()]}, folder / "optimizer.ckpt")
    torch.save({**state, "callbacks": {"x": Canary()}}, folder / "callbacks.ckpt")
    torch.save({**state, "hyper_parameters": {**state["hyper_parameters"], "x": Canary()}}, folder / "hyper.ckpt")
    (folder / "raw.ckpt").write_bytes(pickle.dumps(Canary()))
    torch.save({**state, "state_dict": Canary()}, folder / "legacy.ckpt", _use_new_zipfile_serialization=False)
    network = {"class_path": "os.system", "init_args": {"command": "touch canary"}}
    hyper = {**state["hyper_parameters"], "network": network, "_instantiator": "os.system"}
    torch.save({**state, "hyper_parameters": hyper}, folder / "instantiator.ckpt")
    return ["optimizer.ckpt", "callbacks.ckpt", "hyper.ckpt", "raw.ckpt", "legacy.ckpt", "instantiator.ckpt"]


def damaged(best, folder):
    content = best.read_bytes()
    made = {
        "empty": b"",
        "cut": content[: len(content) // 2],
        "text": b"text",
        "page": b"<html>404</html>",
        "junk": b"PK\x03\x04" + bytes(100),
        "bit": content[:5000] + bytes([content[5000] ^ 1]) + content[5001:],
    }
    for name, data in made.items():  # fmt: skip
        (folder / f"{name}.ckpt").write_bytes(data)
        shutil.copy(best.with_name(best.name + ".sha256"), folder / f"{name}.ckpt.sha256")
    return [f"{name}.ckpt" for name in made]


@pytest.mark.reliability
@pytest.mark.parametrize(("case", "make"), [("G1", hostile), ("G2", damaged)])
def test_checkpoints_of_strangers_run_nothing_whatever_the_verb(zygote, place, phantoms, trained, count, case, make):
    folder = place("run")
    names = [*make(trained / "checkpoints" / "best.ckpt", folder), *(["https://example.org/a.ckpt"] * (case == "G1"))]
    images = phantoms / "test" / "images"
    verbs = [
        ["fit", "-c", "c.yaml", "--ckpt_path"],
        ["validate", "--data.root", phantoms, "--ckpt_path"],
        ["test", "--data.root", phantoms, "--ckpt_path"],
        ["predict", "--data.predict_dir", images, "--prediction.output_dir", "masks", "--ckpt_path"],
        ["export", "--output", "model.onnx"],
    ]
    held = 0
    for name in names:
        for verb in verbs:
            job = zygote.start(*verb, name, cwd=folder)
            ended, said = job.wait(), job.said
            lines = [line for line in said.splitlines() if line.startswith("flexunet: ")]
            good = ended == 2 and len(lines) == 1 and name.rpartition("/")[2] in lines[0] and "weights_only" not in said
            good = good and not (folder / "canary").exists() and not (folder / "model.onnx").exists()
            if not good:
                print(name, verb[0], ended, said[-500:])  # noqa: T201 - shown where it fails
            held += good
    assert not (folder / "masks").exists()
    what = {"G1": "pickles, class paths and addresses in checkpoints", "G2": "damaged checkpoints"}[case]
    count(case, held, len(names) * len(verbs), f"{what}, 5 verbs: one line, exit 2, nothing run or written")


@pytest.mark.reliability
def test_a_checkpoint_of_another_network_is_explained(zygote, place, phantoms, trained, count):
    folder = place("run")
    state = torch.load(trained / "checkpoints" / "best.ckpt", weights_only=True)
    held = 0
    for key, value in (("base_filters", 8), ("num_layers", 4), ("num_classes", 3), ("base_kernels", [5, 5])):
        network = json.loads(json.dumps(state["hyper_parameters"]["network"]))
        network["init_args"][key] = value
        torch.save({**state, "hyper_parameters": {**state["hyper_parameters"], "network": network}}, folder / "o.ckpt")
        job = zygote.run("export", "o.ckpt", "--output", "model.onnx", cwd=folder, status=2)
        fits = "a FlexUNet with in_channels 3, num_classes 4, base_filters 4, base_kernels [3, 3], num_layers 3"
        held += "o.ckpt: its weights do not fit" in job.verdict and fits in job.verdict and len(job.verdict) < 600
    count("G3", held, 4, "weights of another network: one line with the first keys and the settings that fit, exit 2")
