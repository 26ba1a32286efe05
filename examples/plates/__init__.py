"""Licence plates: characters, images with their labels, recognisers, and their scores."""
