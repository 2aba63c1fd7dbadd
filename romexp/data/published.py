"""The authors' published files (docs/method.md §1).

Sizes and digests come from public Git-LFS copies (`scalable-model-editing/rebuilding-rome:data/`), on the assumption
that these were not modified. For a file that differs, set `remote.size` and `remote.sha256` in the configuration.
"""

from __future__ import annotations

from typing import Final

from romexp.data.download import RemoteFile

_ROOT: Final = "https://rome.baulab.info/data/dsets"

COUNTERFACT: Final = RemoteFile(
    url=f"{_ROOT}/counterfact.json",
    size=45_108_470,
    sha256="d017056125178a13728594e66a801357a8db9ed7973a7425554bb4271de9fc6f",
)
ZSRE_EVAL: Final = RemoteFile(url=f"{_ROOT}/zsre_mend_eval.json")
KNOWN_1000: Final = RemoteFile(url=f"{_ROOT}/known_1000.json")
ATTRIBUTE_SNIPPETS: Final = RemoteFile(
    url=f"{_ROOT}/attribute_snippets.json",
    size=926_285_719,
    sha256="10b5c1cd105e54d5983c72de1b45bfc88bc7af786f7b99def2557886ff23385b",
)
TFIDF_IDF: Final = RemoteFile(
    url=f"{_ROOT}/idf.npy",
    size=11_042_168,
    sha256="c073d642589d4ac6432f467230329b36364a01e72de63a77a3624b745b923dda",
)
TFIDF_VOCABULARY: Final = RemoteFile(
    url=f"{_ROOT}/tfidf_vocab.json",
    size=31_639_072,
    sha256="8a78c4f20d8d85dadfd14e283d71af255482ff18aa0eb8a81716024c05ff888b",
)
