"""Errors caused by a user's input. The command line prints them as one sentence, without a traceback."""


class FeatcacheError(ValueError):
    """The base of all errors; each message names the wrong thing, its value, the choices and the fix."""


class ManifestError(FeatcacheError):
    """A manifest that cannot be read or breaks a rule; the message names file, line, column and value."""


class MediaError(FeatcacheError):
    """A source that exists in the manifest but cannot be decoded: its clip is recorded as failed, with this reason."""


class MediaAbsentError(FeatcacheError):
    """A source that has no such modality by nature (a video without sound): recorded as absent, not as failed."""


class DeviceError(FeatcacheError):
    """A device, such as a GPU, failed or has too little memory; it is not the fault of a clip."""


class StoreError(FeatcacheError):
    """A store that is missing, damaged, locked, incomplete, or made from other clips or by another recipe."""


class FormatError(FeatcacheError):
    """Another tool's feature file that cannot be read, or cannot be written from these features."""


class ConfigError(FeatcacheError):
    """A run, experiment, name or parameter that does not exist or does not fit the others."""


class ArgumentsError(ConfigError):
    """Arguments that exclude each other, or lack another one."""


class WordError(ArgumentsError):
    """A word of a choice that names nothing, such as an unknown method or domain."""


class NoEntryError(ConfigError):
    """A name that a registry does not have: it is mistyped, or that of a plug-in that was not named."""


class BusyError(FeatcacheError):
    """Something that another process is making now; the message names that process."""


class WeightsError(FeatcacheError):
    """Weights of a network that are missing, differ from the published ones, or do not fit the network."""
