"""One file a decoder: PyAV for video files, Decord and Pillow for folders of images."""
