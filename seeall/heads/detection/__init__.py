"""Finding things in pictures, by box or by mask."""
