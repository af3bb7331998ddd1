"""Object storage (S3, Google Cloud Storage, Azure) and the Hugging Face Hub: a URL -> a local folder, and back.

The clients are obstore (`pip install 'featcache[s3]'`) and huggingface_hub (`featcache[hub]`). They are imported when a
URL is opened.

    urls.py      URLs of object stores and of the hub: recognised, checked, and shown in messages
    opening.py   a place of objects: list, get, put, commit; a bucket, a dataset of the hub or a local folder
    hub.py       the files of a dataset of the hub
    folder.py    the files of a local folder
    bucket.py    the objects below a URL: list, get, put, conditional writes, and errors of one sentence
    cache.py     stores below a URL -> the same files in the local cache
    owner.py     the object that keeps two machines from writing one folder of stores
"""
