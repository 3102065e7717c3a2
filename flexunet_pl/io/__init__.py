"""Bytes to arrays and back: images, masks, volumes, arrays; cases and pairs of a folder. No torch."""
