"""Spoken digit strings: recordings and features, recognisers, losses, decoding and scores."""
