"""Lines of text: characters, fonts, rendering, labelled images, the recogniser, reading."""
