"""What a prediction writes, and how it goes on where it stopped."""
