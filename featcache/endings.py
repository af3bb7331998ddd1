"""The file name endings of media, used by folder scans and by decoding.

A video without pictures is broken. A sound file has none by nature. An image is a clip, or a frame of a folder.
"""

VIDEO = frozenset(
    {".3gp", ".avi", ".flv", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ogv", ".ts", ".webm", ".wmv"}
)
SOUND = frozenset({".aac", ".flac", ".m4a", ".mp3", ".ogg", ".opus", ".wav"})
IMAGE = frozenset({".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})
SKELETON = frozenset({".json", ".npy", ".npz", ".skeleton", ".txt"})
ARRAY = frozenset({".h5", ".hdf5", ".npy", ".npz"})
NUMBERS = ARRAY | {".csv"}
