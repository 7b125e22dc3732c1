"""An index whose vectors and items are in Milvus. Needs the extra `milvus`."""
