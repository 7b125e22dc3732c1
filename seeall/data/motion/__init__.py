"""What moves: fields of flow in files, pairs of frames with the flow between them, clips."""
