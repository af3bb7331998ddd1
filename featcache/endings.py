"""The file name endings of media, used by folder scans and by decoding.

A video without pictures is broken. A sound file has none by nature. An image is a clip, or a frame of a folder.
"""

VIDEO = frozenset(
    {".3g2", ".3gp", ".asf", ".avi", ".dv", ".f4v", ".flv", ".m2t", ".m2ts", ".m2v", ".m4v", ".mkv", ".mov", ".mp4"}
) | {".mpe", ".mpeg", ".mpg", ".mts", ".mxf", ".ogm", ".ogv", ".ts", ".vob", ".webm", ".wmv"}
SOUND = frozenset(
    {".aac", ".ac3", ".aif", ".aifc", ".aiff", ".amr", ".au", ".caf", ".flac", ".m4a", ".mka", ".mp2", ".mp3", ".oga"}
) | {".ogg", ".opus", ".wav", ".wma", ".wv"}
IMAGE = frozenset({".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})
SKELETON = frozenset({".json", ".npy", ".npz", ".skeleton", ".txt"})
ARRAY = frozenset({".h5", ".hdf5", ".npy", ".npz"})
NUMBERS = ARRAY | {".csv"}

#: Names of folders of pictures of flow, or beginnings of the pictures' names: motion to the right, and downwards.
DIRECTIONS = (("flow_x", "flow_y"), ("flow_u", "flow_v"), ("x", "y"), ("u", "v"))
