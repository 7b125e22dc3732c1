"""Pictures and what people, or a renderer, say is in them."""
