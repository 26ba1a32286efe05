"""Licence plates: characters, pictures with their labels, recognisers, and how they are judged."""
