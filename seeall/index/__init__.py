"""An index folder: vectors that are never lost, and FAISS to search them."""
