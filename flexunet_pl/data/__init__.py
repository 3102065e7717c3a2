"""Images and masks from folders to batches."""
