"""Object storage (S3, Google Cloud Storage, Azure): a URL -> a local folder, and a local folder -> a URL.

obstore is the only client. It is imported when a URL is opened, and comes with `pip install 'featcache[s3]'`.

    urls.py      which texts are URLs of an object store
    bucket.py    the objects below a URL: list, get, put, conditional writes, and errors of one sentence
    cache.py     stores below a URL -> the same files in the local cache
    owner.py     the object that keeps two machines from writing one folder of stores
"""
