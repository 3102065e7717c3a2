"""The old world: weights and configurations of the original TensorFlow-FlexUNet."""
