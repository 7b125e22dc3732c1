"""What happens in a clip: networks that see one frame at a time, several, or two speeds."""
