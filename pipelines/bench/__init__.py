"""Parts of featcache -> their cost, measured against the plainest way to do the same (`make bench`)."""
