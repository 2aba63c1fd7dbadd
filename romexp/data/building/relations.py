"""Relations: their templates, and other names of their objects. A YAML file describes them."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from romexp.data.schema import Template, Text, explain
from romexp.errors import DataError

_AFTER_OBJECT = re.compile(r"\s*\[Y\]\s*[.?!]?\s*$")


def name_key(text: str) -> str:
    """What two spellings of one name have in common: no capitals, accents, punctuation, or article at the beginning.

    >>> name_key("The São-Tomé") == name_key("sao tome")
    True
    """
    letters = "".join(c for c in unicodedata.normalize("NFKD", text.casefold()) if not unicodedata.combining(c))
    words = re.sub(r"[\W_]+", " ", letters).split()
    return " ".join(words[1:] if len(words) > 1 and words[0] == "the" else words) or text.strip()


def contains_name(text: str, name: str) -> bool:
    """Whether a text names something, as words of its own; both are given by their `name_key`."""
    return f" {name} " in f" {text} "


def _plain(template: Any) -> Any:
    """A template with `{}` that ends before the object. ParaRel writes `[X] was born in [Y] .`"""
    if not isinstance(template, str):
        return template
    template = _AFTER_OBJECT.sub("", template)
    return template if "{}" in template else template.replace("[X]", "{}").replace("{subject}", "{}")


def _distinct(templates: list[str]) -> list[str]:
    return list(dict.fromkeys(templates))


_Template = Annotated[Template, BeforeValidator(_plain)]
_Templates = Annotated[list[_Template], AfterValidator(_distinct)]


class Relation(BaseModel):
    """One relation. Every template has one `{}` for the subject; all but questions end before the object.

    Attributes:
        prompts: wordings of the fact. The edit, and the prompts about other subjects, take one each.
        paraphrases: wordings for the paraphrase prompts; none takes the other `prompts`.
        generations: beginnings of texts about the subject, which need not lead to the object; none takes `prompts`.
        questions: questions that the object answers, for data in zsRE's form.
        aliases: other names of objects, by the name that is used. Two names of one object never contradict each other.
        several: whether a subject may have several true objects. Otherwise two are a contradiction.
    """

    model_config = ConfigDict(strict=True, extra="forbid")

    prompts: Annotated[_Templates, Field(min_length=1)]
    paraphrases: _Templates = []
    generations: _Templates = []
    questions: _Templates = []
    aliases: dict[Text, list[Text]] = {}
    several: bool = False

    @cached_property
    def object_names(self) -> Mapping[str, str]:
        """The used name of each object that has other names, by the key of every name."""
        found: dict[str, str] = {}
        for name, others in self.aliases.items():
            for each in (name, *others):
                found.setdefault(name_key(each), name)
        return found


def read_relations(path: Path) -> dict[str, Relation]:
    """The relations of a YAML file, by name: `name: {prompts: […], …}`, or `name: [prompts]`, also below `relations:`.

    Raises:
        DataError: the file cannot be read, or a relation is not described as it must be.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})") from error
    except (yaml.YAMLError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark is not None else ""
        raise DataError(
            f"{path}{where}: not YAML ({getattr(error, 'problem', None) or type(error).__name__})"
        ) from error
    if isinstance(content, dict) and isinstance(content.get("relations"), dict):
        content = content["relations"]
    if not isinstance(content, dict) or not content:
        raise DataError(f"{path}: expected relations by their names, each with a list of prompts")
    return {str(name): _relation(path, str(name), value) for name, value in sorted(content.items(), key=_by_name)}


def _by_name(item: tuple[Any, Any]) -> str:
    return str(item[0])


def _relation(path: Path, name: str, value: Any) -> Relation:
    try:
        return Relation.model_validate({"prompts": value} if isinstance(value, list) else value)
    except ValidationError as error:
        field, reason = explain(error)
        raise DataError(f"{path}, relation {name}, field {field}: {reason}") from error
