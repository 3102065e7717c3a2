"""What a configuration of the original becomes."""

import re

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from flexunet_pl.common.errors import UserError
from flexunet_pl.interop.config.class_names import name_classes
from flexunet_pl.interop.config.convert import convert, convert_config
from flexunet_pl.interop.config.ini import Ini

_SMALL = "[model]\nimage_width=64\nimage_height=64\nnum_layers=3\n[mask]\nrgb_map={(0,0,0):0,(255,255,255):1}\n"


def _convert(text, **options):
    return convert_config(text, **options)


def _with(text, line, old=None):
    """The text with a line in place of the one that sets the same key, or of another."""
    key = old or line.partition("=")[0].strip()
    changed = re.sub(rf"^{key}\s*=.*$", lambda _: line, text, count=1, flags=re.MULTILINE)
    assert changed != text
    return changed


def _remarks(text, **options):
    return "\n".join(_convert(text, **options)[1])


def test_everything_with_a_meaning_is_carried_over(text):
    config, _ = _convert(text)
    assert config == {
        "seed_everything": 137,
        "model": {
            "rgb_map": {"background": [0, 0, 0], "liver": [0, 0, 255], "tumor": [255, 0, 0]},
            "image_size": [256, 512],
            "in_channels": 3,
            "network": {
                "class_path": "flexunet_pl.models.FlexUNet",
                "init_args": {
                    "base_filters": 16,
                    "base_kernels": [9, 9],
                    "num_layers": 8,
                    "dilation": [3, 3],
                    "dropout_rate": 0.04,
                    "normalization": True,
                    "activation": "relu",
                    "input_normalize": False,
                },
            },
            "loss": {"class_path": "torch.nn.CrossEntropyLoss"},
            "optimizer": {
                "class_path": "torch.optim.AdamW",
                "init_args": {"lr": 7e-5, "eps": 1e-7, "weight_decay": 0.004},
            },
            "scheduler": {
                "class_path": "lightning.pytorch.cli.ReduceLROnPlateau",
                "init_args": {
                    "monitor": "val/loss",
                    "factor": 0.3,
                    "patience": 5,
                    "threshold": 1e-4,
                    "threshold_mode": "abs",
                },
            },
        },
        "trainer": {"gradient_clip_val": 0.5, "gradient_clip_algorithm": "value", "max_epochs": 80},
        "data": {
            "unknown_colors": "nearest",
            "root": "../../../dataset/Some Thing",
            "batch_size": 2,
            "train_transform": None,
            "predict_dir": "mini_test/images",
        },
        "early_stopping": {"patience": 12},
        "epoch_change": {"num_images": 4, "images": "mini_test/images"},
        "prediction": {"output_dir": "mini_test_output"},
    }


def test_defaults_are_those_of_the_original():
    config, remarks = _convert(_SMALL + "[train]\n")
    network = config["model"]["network"]["init_args"]
    assert (network["base_kernels"], network["dilation"], network["input_normalize"]) == ([3, 3], [1, 1], True)
    assert config["model"]["optimizer"] == {"class_path": "torch.optim.Adam", "init_args": {"lr": 1e-4, "eps": 1e-7}}
    assert config["model"]["scheduler"] is None
    assert config["trainer"] == {"gradient_clip_val": 0.2, "gradient_clip_algorithm": "value", "max_epochs": 100}
    assert (config["data"]["batch_size"], config["early_stopping"]) == (4, {"patience": 10})
    assert _convert(_SMALL.replace("num_layers=3", ""))[0]["model"]["network"]["init_args"]["num_layers"] == 6
    assert "there is no [model] base_filters, for which the original has no default; 16 is used" in remarks


def test_each_setting_is_carried_over_or_remarked_on(text):
    text += "\n[tiledinfer]\noverlapping = 64\n[strange]\nx = 1\n[model2]\n[generator]\ndebug = True"
    conversion = convert(text)
    remarked = {int(n) for remark in conversion.remarks for n in re.findall(r"\d+", remark.partition(": ")[0])}
    carried = {int(n) for origin in conversion.origins.values() for n in re.findall(r"line (\d+)", origin)}
    lines = {s.line for s in Ini(text, "c").settings.values()}
    silent = {
        s.line for s in Ini(text, "c").settings.values() if s.key in {"mask_file_format", "color_order", "metrics"}
    }
    silent |= {
        s.line for s in Ini(text, "c").settings.values() if s.key in {"num_classes", "generator", "epoch_change_infer"}
    }
    assert lines - remarked - carried <= silent  # these are as they are here, with nothing to be set


@pytest.mark.parametrize(
    ("line", "path", "value"),
    [
        ("learning_rate = 0.0001 ; was less", "model.optimizer.init_args.lr", 1e-4),
        ("learning_rate = 1e-4 # was less", "model.optimizer.init_args.lr", 1e-4),
        ("base_kernels = (11, 11,)", "model.network.init_args.base_kernels", [11, 11]),
        ("base_kernels = [5,7]", "model.network.init_args.base_kernels", [7, 7]),
        ("activation = mish\nloss = 'dice_loss'", "model.network.init_args.activation", "mish"),
        ("input_normalize = True", "model.network.init_args.input_normalize", True),
        ("optimizer = Adam", "model.optimizer.class_path", "torch.optim.Adam"),
        ("optimizer = 'Adam'", "model.optimizer.class_path", "torch.optim.Adam"),
        ("patience = 0", "early_stopping.patience", 80),
        ("epoch_change_infer = False", "epoch_change.num_images", 0),
        ("num_infer_images = 0", "epoch_change.num_images", 1),
        ('loss = "categorical_focal_dice_loss"', "model.loss.class_path", "flexunet_pl.losses.DiceCELoss"),
        ("learning_rate_reducer = False", "model.scheduler", None),
    ],
)
def test_values_are_read_in_all_their_forms(text, line, path, value):
    node = _convert(_with(text, line, "loss" if "\n" in line else None))[0]
    for key in path.split("."):
        node = node[key]
    assert node == value


@pytest.mark.parametrize("key", ["epoch_change_tiledinfer", "epoch_change_tiled_infer"])
def test_tiles_in_the_pictures_of_each_epoch_are_carried_over(text, key):
    assert _convert(_with(text, f"{key} = True\nepochs = 80", "epochs"))[0]["epoch_change"]["tiled"] is True
    assert "tiled" not in _convert(text)[0]["epoch_change"]


@pytest.mark.parametrize(
    ("line", "remark"),
    [
        ('loss = "categorical_focal_dice_loss"', "it is cross-entropy plus Dice"),
        ('loss = "bce_dice_loss"', "the nearest here is DiceCELoss"),
        ('loss = "something"', "it is not known; cross-entropy is used"),
        ('metrics = ["dice_coef_foreground"]', "the nearest score here is `dice`"),
        ('metrics = ["dice_coef_hybrid"]\nhybrid_alpha = 0.5', "the nearest scores here are `dice` and"),
        ("base_kernels = (5,7)", "base_kernels are not square; the original uses the last, 7"),
        ('loss = "binary_crossentropy"', "takes each class by itself"),
        ("image_channels = 4", "image_channels is 4, but images with 1 or 3 channels are read here"),
        ('model = "TensorFlowUNet3"', "check that it was one"),
        ("reducer_patience = 6", "never effective in the original, which misspells it to Keras and so waits for 10"),
        ('color_order = "BGR"', "networks are given RGB here"),
        ("create_backup = True\nepochs = 80", "[train] create_backup: the original never reads it"),
        ("show_summary = False\nloss = 'dice_loss'", "[model] show_summary: the original never reads it"),
        (
            "epoch_change_infer = True\nloss = 'dice_loss'",
            "[model] epoch_change_infer: the original reads this key in [train] alone",
        ),
        ("lerning_rate = 1\nloss = 'dice_loss'", "not known; not used; did you mean learning_rate?"),
        (
            'mask_datatyoe = "categorized"\nmask_file_format = ".png"',
            "[mask] mask_datatyoe: the original never reads it",
        ),
    ],
)
def test_what_is_not_as_it_stands_is_remarked_on(text, line, remark):
    key = line.split("\n")[-1].partition("=")[0].strip() if "\n" in line and "hybrid" not in line else None
    assert remark in _remarks(_with(text, line, key))


def test_other_ways_of_inference_are_listed_with_their_values(text):
    text += "\n[infer3d]\nslice_rotation = cv2.ROTATE_90_CLOCKWISE\nslice_resize = None\n[tiledinfer]\noverlapping = 64"
    remarks = _remarks(text)
    assert "not carried over: slice_rotation = cv2.ROTATE_90_CLOCKWISE, slice_resize = None" in remarks
    assert "--inference.tiled true" in remarks
    assert "tiles are blended; not carried over: overlapping = 64" in remarks


def test_like_the_original_the_reducer_waits_for_ten_epochs(text):
    config, remarks = _convert(text, like_the_original=True)
    assert config["model"]["scheduler"]["init_args"]["patience"] == 10
    assert any(
        "reducer_patience is 5, but was never effective" in remark and "10 is used" in remark for remark in remarks
    )


def test_a_map_in_another_section_is_found(text):
    with pytest.raises(UserError, match=r"no \[mask\] rgb_map, .* it stands in \[masks\], line 61; move it"):
        _convert(text.replace("[mask]", "[masks]"))


def test_a_key_of_several_sections_in_another_is_explained(text):
    assert "[eval] images_dir: the original reads this key in [infer], [test], [train], [valid] alone" in _remarks(
        text + "\n[eval]\nimages_dir = 'x'"
    )


def test_the_reducer_lowers_the_rate_where_keras_does_one_epoch_later(text):
    import keras
    import torch

    init_args = dict(_convert(text)[0]["model"]["scheduler"]["init_args"])
    init_args.pop("monitor")
    losses = [0.0018 - 5e-6 * epoch for epoch in range(40)]  # falls by less than Keras takes for a change
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    ours = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, **init_args)
    model = keras.Sequential([keras.layers.Input((1,)), keras.layers.Dense(1)])
    model.compile(optimizer=keras.optimizers.SGD(1.0), loss="mse")
    theirs = keras.callbacks.ReduceLROnPlateau(factor=0.3, patience=5)
    theirs.set_model(model)
    theirs.on_train_begin()
    drops = [[], []]
    for epoch, loss in enumerate(losses):
        before = [optimizer.param_groups[0]["lr"], float(model.optimizer.learning_rate)]
        ours.step(loss)
        theirs.on_epoch_end(epoch, {"val_loss": loss})
        after = [optimizer.param_groups[0]["lr"], float(model.optimizer.learning_rate)]
        for seen, old, new in zip(drops, before, after, strict=True):
            seen += [epoch] if new < old * 0.99 else []
    assert drops[1][0] == 5
    assert drops[0][0] == drops[1][0] + 1


def test_one_class_by_sigmoid_is_two_by_softmax():
    config, remarks = _convert(_SMALL.replace("[mask]", "num_classes=1\n[mask]"))
    assert config["model"]["rgb_map"] == {"background": [0, 0, 0], "class_1": [255, 255, 255]}
    assert any("which is the same as one by sigmoid" in remark for remark in remarks)
    config, _ = _convert("[model]\nnum_classes=1\nimage_width=64\nimage_height=64\nnum_layers=3\n")
    assert list(config["model"]["rgb_map"].values()) == [[0, 0, 0], [255, 255, 255]]


def test_the_class_is_the_position_of_a_colour_not_its_value(text):
    config, remarks = _convert(_with(text, "rgb_map = {(0,0,0):0,(255,0,0):2,(0,0,255):1}"))
    assert list(config["model"]["rgb_map"].items())[1:] == [("tumor", [255, 0, 0]), ("liver", [0, 0, 255])]
    assert any("gives other values than 0, 1, 2 and so on, but they are never used" in remark for remark in remarks)


def test_a_map_over_several_lines(text):
    config, _ = _convert(_with(text, "rgb_map = {(0,0,0):0, \\ \n    (0,0,255):1,   \\\n\t(255,0,0):2,  }   "))
    assert list(config["model"]["rgb_map"]) == ["background", "liver", "tumor"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("rgb_map = {(0,0,0):0,]", "line 61: [mask] rgb_map: expected a dict of colours"),
        ("rgb_map = {(0,0,0):0,(0,0,300):1,(255,0,0):2}", "expected a dict of colours"),
        ("rgb_map = {(0,0,0):0,(0,0,255):1,(0,0,255):2}", "(a key stands twice)"),
        ("rgb_map = {(0,0,0):0,(0,0,255):1}", "line 11: [model] num_classes is 3, but [mask] rgb_map has 2 colours"),
        ("color_map = {(0,0,0):0,(0,0,255):1}", "line 61: [mask] color_map: the original does not read this key"),
        (
            "rgb_map = {(0,0,0):0,(0,0,255):1,(255,0,0):2}\n  stray = 1",
            "the indented lines below it are part of the value",
        ),
        ("", "there is no [mask] rgb_map"),
    ],
)
def test_a_map_that_cannot_be_used_is_an_error(text, line, message):
    with pytest.raises(UserError, match=re.escape(message)) as error:
        _convert(_with(text, line, "rgb_map"))
    assert "\n" not in str(error.value)


def test_like_the_original_its_own_map_is_used(text):
    text = _with(_with(text, "color_map = {(0,0,0):0,(0,0,255):1}", "rgb_map"), "num_classes = 4")
    config, remarks = _convert(text, like_the_original=True)
    assert list(config["model"]["rgb_map"].values()) == [[0, 0, 0], [0, 255, 0], [255, 0, 0], [0, 0, 255]]
    assert any("the original's own map of four colours is used" in remark for remark in remarks)


@pytest.mark.parametrize(
    ("comment", "names"),
    [
        ("Liver:blue, tumor:red", ["Liver", "tumor"]),
        ("liver = blue tumor = RED", ["liver", "tumor"]),
        ("background:black , left lung: blue,", ["left_lung", "class_2"]),
        ("1+2 classes", ["class_1", "class_2"]),
        ("liver:green, tumor:red", ["class_1", "tumor"]),
        ("a:blue, a:red", ["class_1", "class_2"]),
        ("class_2:blue", ["class_1", "class_2"]),
        ("(NCR):blue", ["NCR", "class_2"]),
        ("wall: blue, Cancer: dark_red", ["wall", "Cancer"]),
        ("Background;black, NET/NCR:red, ED: blue", ["ED", "NET_NCR"]),
        ("a" * 100 + ":blue", ["class_1", "class_2"]),
        ("a" * 100_000 + " " * 100_000, ["class_1", "class_2"]),
    ],
)
def test_names_come_from_pairs_of_name_and_colour_that_fit_the_map(comment, names):
    assert name_classes([(0, 0, 0), (0, 0, 255), (255, 0, 0)], [comment])[0][1:] == names


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "learning_rate = __import__('os').system('touch canary')",
            "line 18: [model] learning_rate: expected a number",
        ),
        ("learning_rate = 'fast'", "expected a number above 0, found `'fast'`"),
        ("learning_rate = -1", "learning_rate: expected a number above 0, found `-1`"),
        ("activation = os.system\nloss = 'dice_loss'", "line 20: [model] activation: expected one of relu, relu6"),
        ("base_kernels = 9", "expected two integers such as (3, 3), found `9`"),
        ("base_kernels = (8, 8)", "line 12: base_kernels is [8, 8] but both must be odd"),
        ("num_layers = 9.5", "expected an integer"),
        ("num_layers = 100", "is too large"),
        ("image_width = 500", "each side must be a multiple of 128"),
        ("normalization = yes", "expected True or False, found `yes`"),
        ("optimizer = 'SGD'", "expected Adam or AdamW"),
        ("batch_size = 0", "batch_size: expected an integer of at least 1"),
        ("epochs = 0", "epochs: expected an integer of at least 1"),
        ("clipvalue = 0", "clipvalue: expected a number above 0"),
        ("reducer_factor = 2", "reducer_factor: expected a number above 0 and below 1"),
        ("images_dir = f('x')", "line 34: [train] images_dir: expected a path"),
        ("dropout_rate = 0.5", "must stay in [0, 1)"),
    ],
)
def test_a_value_that_cannot_be_used_is_one_line_with_file_and_line(text, line, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=re.escape(message)) as error:
        _convert(_with(text, line, "loss" if "\n" in line else None), name="my.config")
    assert str(error.value).startswith("my.config, line ")
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_like_the_original_a_value_that_cannot_be_read_is_the_default(text):
    config, remarks = _convert(_with(text, "learning_rate = 0.00007 ; small"), like_the_original=True)
    assert config["model"]["optimizer"]["init_args"]["lr"] == 1e-4
    assert any("[model] learning_rate cannot be evaluated" in r and "default 0.0001 is used" in r for r in remarks)


@pytest.mark.parametrize("root", ["../../dataset/X", "/data/X", "C:/data/X"])
@pytest.mark.parametrize("form", ['"{}"', "{}", "'{}'"])
@pytest.mark.parametrize("slash", ["/", "\\"])
def test_the_root_is_found_from_the_folders(root, form, slash):
    lines = []
    for split in ("train", "valid", "test"):
        lines.append(f"[{split}]")
        folders = {kind: f"{root}/{split}/{kind}/".replace("/", slash) for kind in ("images", "masks")}
        lines += [f"{kind}_dir = {form.format(folder)}" for kind, folder in folders.items()]
    assert _convert(_SMALL + "\n".join(lines))[0]["data"]["root"] == root


def test_folders_in_another_order_are_remarked_on(text):
    config, remarks = _convert(_with(text, 'images_dir = "../elsewhere/pictures/"'))
    assert "root" not in config["data"]
    assert any("arrange them so and set data.root" in remark for remark in remarks)


_AUGMENTOR = """
[generator]
augmentation = True
[augmentor]
vflip = False
angles = [90, 180,]
shrinks = [0.8]
shears = [0.1]
deformation = True
distortion = True
sharpening = True
brightening = True
barrdistortion = True
pincdistortion = True
[deformation]
alpah = 1300
sigmoids = [8.0]
[distortion]
gaussian_filter_rsigma = 40
gaussian_filter_sigma = 0.5
distortions = [0.02,]
[barrdistortion]
radius = 0.3
amount = 0.3
centers = [(0.3, 0.3), (0.7, 0.3)]
[pincdistortion]
radius = 0.3
amount = -0.3
centers = [(0.5, 0.5)]
[sharpening]
k = 1.0
[brightening]
alpha = 1.2
beta = 10
"""


def _variants(text):
    transform = _convert(text)[0]["data"]["train_transform"]
    (one_of,) = transform["init_args"]["transforms"]
    assert one_of["class_path"] == "albumentations.OneOf"
    variants = one_of["init_args"]["transforms"]
    assert one_of["init_args"]["p"] == pytest.approx(len(variants) / (len(variants) + 1), abs=1e-4)
    return [
        (v["class_path"].rpartition(".")[2], {k: x for k, x in v["init_args"].items() if k != "p"}) for v in variants
    ]


def test_the_augmentor_becomes_one_of_its_variants(text):
    names = [name for name, _ in _variants(_with(text, "generator = True") + _AUGMENTOR)]
    assert names == [
        "HorizontalFlip",
        *("Rotate", "Rotate"),
        "Affine",
        *("Affine", "Sequential"),  # sheared, and flipped too
        "ElasticTransform",
        "SmoothDistortion",
        *("RadialDistortion", "RadialDistortion", "RadialDistortion"),
        "Sharpen",
        "RandomBrightnessContrast",
    ]


def test_with_both_flips_there_are_four_ways_to_shear(text):
    augmentor = _AUGMENTOR.replace("vflip = False", "vflip = True")
    sheared = [v for v in _variants(_with(text, "generator = True") + augmentor) if "shear" in str(v)]
    flips = [[step["class_path"][15:] for step in v[1].get("transforms", [])[1:]] for v in sheared]
    assert flips == [[], ["HorizontalFlip"], ["VerticalFlip"], ["HorizontalFlip", "VerticalFlip"]]


def test_a_generator_without_an_augmentor_uses_the_original_s_defaults(text):
    names = [name for name, _ in _variants(_with(text, "generator = True"))]
    assert names == ["HorizontalFlip", "VerticalFlip", "Rotate", "Rotate", "Rotate", "Affine"]


def test_without_a_generator_the_augmentor_is_remarked_on(text):
    config, remarks = _convert(text + _AUGMENTOR)
    assert config["data"]["train_transform"] is None
    assert any("[deformation]: not used, [model] generator is off" in remark for remark in remarks)


_SETTINGS = {
    "model": {
        "num_layers": st.integers(1, 6),
        "base_filters": st.integers(1, 64),
        "base_kernels": st.sampled_from([(3, 3), (5, 5), (11, 11), (9, 7)]),
        "dilation": st.sampled_from([(1, 1), (3, 3)]),
        "dropout_rate": st.floats(0, 0.1),
        "learning_rate": st.floats(1e-6, 1e-2),
        "clipvalue": st.floats(0.01, 1),
        "normalization": st.booleans(),
        "input_normalize": st.booleans(),
        "generator": st.booleans(),
        "optimizer": st.sampled_from(["Adam", "AdamW"]),
        "loss": st.sampled_from(["categorical_crossentropy", "categorical_focal_dice_loss", "x"]),
        "image_width": st.sampled_from([256, 512]),
        "image_height": st.sampled_from([256, 512]),
        "image_channels": st.sampled_from([1, 3]),
    },
    "train": {
        "epochs": st.integers(1, 500),
        "batch_size": st.integers(1, 64),
        "patience": st.integers(-1, 50),
        "learning_rate_reducer": st.booleans(),
        "reducer_factor": st.floats(0.1, 0.9),
        "reducer_patience": st.integers(0, 20),
        "epoch_change_infer": st.booleans(),
        "num_infer_images": st.integers(0, 12),
        "images_dir": st.text(alphabet="ab/. #:'é", min_size=1, max_size=9).filter(
            lambda s: s.strip() and "'" not in s
        ),
    },
    "image": {"color_order": st.sampled_from(["RGB", "BGR"])},
    "augmentor": {
        "hflip": st.booleans(),
        "angles": st.lists(st.integers(0, 359), max_size=3),
        "deformation": st.booleans(),
    },
}


@st.composite
def configurations(draw):
    """A configuration with some of its settings missing, in the spellings of the wild."""
    classes = draw(st.lists(st.tuples(*[st.integers(0, 255)] * 3), min_size=2, max_size=33, unique=True))
    lines = []
    for section, values in _SETTINGS.items():
        lines.append(f"[{section}]{draw(st.sampled_from(['', '  ', ' ; s']))}")
        for key in draw(st.lists(st.sampled_from(sorted(values)), unique=True)):
            gap, tail = draw(st.sampled_from(["=", " = ", "\t=  "])), draw(st.sampled_from(["", "  ", " # c", " ; c"]))
            lines.append(f"{key}{gap}{draw(values[key])!r}{tail}")
    pairs = [f"{color!r}:{i}" for i, color in enumerate(classes)]
    lines += [
        "[mask]",
        "; a:red, b:blue",
        "rgb_map = {" + draw(st.sampled_from([", ", ",\\\n   "])).join(pairs) + ",  }",
    ]
    return draw(st.sampled_from(["\n", "\r\n"])).join(lines)


@pytest.mark.case("F4")
@given(configurations())
@settings(max_examples=150, deadline=None)
def test_generated_configurations_convert(text):
    conversion = convert(text)
    assert yaml.safe_load(yaml.safe_dump(conversion.config)) == conversion.config
    count = text.partition("rgb_map")[2].count("(")
    assert len(conversion.config["model"]["rgb_map"]) == conversion.num_classes == count
    assert all("\n" not in remark for remark in conversion.remarks)


@pytest.mark.case("F4")
@given(
    st.text(max_size=200)
    | configurations().flatmap(lambda t: st.integers(0, len(t)).map(lambda i: t[:i] + "{" + t[i:]))
)
@settings(max_examples=150, deadline=None)
def test_whatever_cannot_be_converted_is_one_line(text):
    for like_the_original in (False, True):
        message = ""
        try:
            convert_config(text, like_the_original=like_the_original)
        except UserError as error:
            message = str(error)
        assert "\n" not in message
