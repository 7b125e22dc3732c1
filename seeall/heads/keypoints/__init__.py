"""Where things are, as points that are found without labels and stay on their things: Transporter."""
