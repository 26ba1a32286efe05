"""Spoken digit strings: recordings and features, recognisers, what they minimise, how they hear."""
