"""A class for every pixel: decoders and their losses."""
