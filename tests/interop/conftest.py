"""A configuration of the original, written from the facts about its dialect."""

import os

import pytest

os.environ.setdefault("KERAS_BACKEND", "torch")  # as our own code does

collect_ignore = ["peer.py"]  # runs in an environment of its own

TEXT = """; train_eval_infer.config
; tumour of something, 1+2 classes
[model]
model          = "TensorFlowFlexUNet"
generator      = False
image_width    = 512
image_height   = 256
image_channels = 3
input_normalize = False
normalization  = True
num_classes    = 3
base_filters   = 16
base_kernels   = (9,9)
num_layers     = 8
dropout_rate   = 0.04
dilation       = (3,3)
optimizer      = "AdamW"
learning_rate  = 0.00007
clipvalue      = 0.5
loss           = "categorical_crossentropy"
;metrics       = ["dice_coef"]
metrics        = ["dice_coef_multiclass"]

[dataset]
class_name     = "ImageCategorizedMaskDataset"

[train]
epochs         = 80
batch_size     = 2
patience       = 12
metrics        = ["dice_coef_multiclass", "val_dice_coef_multiclass"]
model_dir      = "./models/"
eval_dir       = "./eval/"
images_dir     = "../../../dataset/Some Thing/train/images/"
masks_dir      = "../../../dataset/Some Thing/train/masks/"
learning_rate_reducer = True
reducer_factor   = 0.3
reducer_patience = 5
epoch_change_infer     = True
epoch_change_infer_dir = "./epoch_change_infer"
num_infer_images       = 4

[valid]
images_dir = "../../../dataset/Some Thing/valid/images/"
masks_dir  = "../../../dataset/Some Thing/valid/masks/"

[test] \n\
images_dir = "../../../dataset/Some Thing/test/images/"
masks_dir  = "../../../dataset/Some Thing/test/masks/"

[infer]
images_dir = "./mini_test/images/"
output_dir = "./mini_test_output/"

[image]
color_order = "RGB"

[mask]
mask_file_format = ".png"
; backgroun:black liver:blue, tumor:red
rgb_map = {(0,0,0):0,(0,0,255):1,(255,0,0):2,  }"""


@pytest.fixture
def text() -> str:
    """A whole configuration; 512 wide, 256 high, three classes."""
    return TEXT
