"""Where every pixel goes until the next frame: FlowNetS, FlowNetC and RAFT."""
