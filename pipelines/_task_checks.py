"""Checks of a configuration that depend on what its net answers."""

from typing import TYPE_CHECKING

from featcache.errors import ConfigError
from pipelines import settings

if TYPE_CHECKING:
    from pipelines.config import RunConfig


def check_captions(config: "RunConfig") -> None:
    """A retrieval run has captions and what they describe; no other run has captions, and no target."""
    net, captions = settings.name_of(config.net), config.captions
    if config.task != "retrieval":
        if captions:
            raise ConfigError(
                f"feeds.{captions[0]}.captions={config.feeds[captions[0]].captions!r}, but net {net!r} is of "
                f"{config.task}; leave captions empty, or take a net of retrieval"
            )
        return
    if not captions:
        raise ConfigError(
            f"net {net!r} is of retrieval, and no feed is of captions; say which: Feed(STORE, seen_by='source test', "
            "captions=MANIFEST), with captions='own' where each clip has one caption itself"
        )
    if len(captions) == len(config.feeds):
        raise ConfigError(f"feeds: all of {', '.join(captions)} are captions; name a modality of the clips as well")
    for m, feed in config.feeds.items():
        if feed.test == "each":
            raise ConfigError(f"feeds.{m}.test=each averages predictions of classes; in retrieval take all or mean")
    for m in captions:
        feed, first = config.feeds[m], config.feeds[captions[0]]
        if set(feed.seen_by.split()) != {"source", "test"}:
            raise ConfigError(
                f"feeds.{m}.seen_by={feed.seen_by!r}, but captions teach on the source and are asked for in the test, "
                "and a target has none: set seen_by='source test'"
            )
        if feed.captions != first.captions:
            raise ConfigError(
                f"feeds.{m}.captions={feed.captions!r}, but feeds.{captions[0]}.captions={first.captions!r}; all "
                "caption feeds of a run are of the same captions"
            )
        if feed.captions == config.manifest:
            raise ConfigError(f"feeds.{m}.captions={feed.captions!r} is the run's own manifest: write captions='own'")
        if feed.views:
            raise ConfigError(f"feeds.{m}.views are of clips; leave them out of a feed of captions")


def check_clusters(config: "RunConfig") -> None:
    """A clustering run tests its target, and both sides and the test see its first feed."""
    if config.task != "clustering":
        return
    if config.test != config.target:
        raise ConfigError(
            f"test={config.test!r}, but a clustering run finds the clusters of its target {config.target!r}, and other "
            "domains have other classes; leave test out"
        )
    shared, *others = config.feeds
    for m, least in {shared: {"source", "target", "test"}, **{m: {"target", "test"} for m in others}}.items():
        if lacking := sorted(least - set(config.feeds[m].seen_by.split())):
            raise ConfigError(
                f"feeds.{m}.seen_by={config.feeds[m].seen_by!r} lacks {' and '.join(lacking)}: in clustering the first "
                "feed is seen by source, target and test, and others by target and test"
            )
