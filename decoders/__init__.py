"""AdaIN decoders, the autoencoder as one self-describing file, and its training."""
