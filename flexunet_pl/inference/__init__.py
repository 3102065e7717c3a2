"""What is made of predictions: overlays."""
