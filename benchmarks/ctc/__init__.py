"""CTC: speed, memory and exactness of the loss, a soak test, and decoding."""
