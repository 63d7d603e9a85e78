"""A client of image registries, as far as pushing goes."""

import hashlib
import json
import tarfile
import urllib.error
import urllib.request
from typing import Any


class Registry:
    """A registry that takes whatever it is given, at a URL."""

    def __init__(self, url: str) -> None:
        self.url = url

    def put(self, url: str, data: bytes, media_type: str) -> None:
        request = urllib.request.Request(url, data=data, method="PUT", headers={"Content-Type": media_type})
        urllib.request.urlopen(request).close()

    def has(self, path: str) -> bool:
        try:
            urllib.request.urlopen(urllib.request.Request(f"{self.url}/v2/{path}", method="HEAD")).close()
        except urllib.error.HTTPError as error:
            if error.code == 404:
                return False
            raise
        return True

    def blob(self, repository: str, data: bytes) -> str:
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        if self.has(f"{repository}/blobs/{digest}"):
            return digest
        start = urllib.request.Request(f"{self.url}/v2/{repository}/blobs/uploads/", data=b"", method="POST")
        with urllib.request.urlopen(start) as answer:
            place = answer.headers["Location"]
        self.put(f"{place}{'&' if '?' in place else '?'}digest={digest}", data, "application/octet-stream")
        return digest

    def manifest(self, repository: str, reference: str, data: bytes, media_type: str) -> None:
        self.put(f"{self.url}/v2/{repository}/manifests/{reference}", data, media_type)


class Layout:
    """An OCI image layout in a tar file."""

    def __init__(self, tar: tarfile.TarFile) -> None:
        self.tar = tar
        self.members = {member.name.removeprefix("./"): member for member in tar.getmembers()}

    def read(self, name: str) -> bytes:
        file = self.tar.extractfile(self.members[name])
        if file is None:
            raise ValueError(f"{self.tar.name}: {name} is no file")
        return file.read()

    def blob(self, digest: str) -> bytes:
        return self.read("blobs/" + digest.replace(":", "/"))

    def push(self, registry: Registry) -> list[str]:
        """Pushes all images that the layout's index names; the registry's own name in theirs is left out."""
        names = []
        for descriptor in json.loads(self.read("index.json"))["manifests"]:
            name = descriptor.get("annotations", {}).get("io.containerd.image.name")
            if not name:
                raise ValueError(f"{self.tar.name}: an image without the annotation io.containerd.image.name")
            repository, _, tag = name.partition("/")[2].rpartition(":")
            self.push_manifest(registry, repository, tag, descriptor)
            names.append(name)
        return names

    def push_manifest(self, registry: Registry, repository: str, reference: str, descriptor: dict[str, Any]) -> None:
        data = self.blob(descriptor["digest"])
        manifest = json.loads(data)
        for child in manifest.get("manifests", []):
            self.push_manifest(registry, repository, child["digest"], child)
        for part in [manifest[key] for key in ("config",) if key in manifest] + manifest.get("layers", []):
            registry.blob(repository, self.blob(part["digest"]))
        registry.manifest(repository, reference, data, descriptor["mediaType"])
