"""One file for each verb beside those of Lightning."""
