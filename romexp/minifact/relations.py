"""The relations of the fictional world: wordings of statements and questions, and the possible objects.

Every template has one `{}` for the subject and ends before the object, so that `template + " " + object` is a
statement. There are three forms of template: `{} verb …` (a main clause), `{}, …` (an apposition, after which a main
clause may follow) and `The … of {} is`.
"""

from __future__ import annotations

from dataclasses import dataclass

PERSON, BUILDING, DEVICE = "person", "building", "device"


@dataclass(frozen=True, kw_only=True)
class Relation:
    """One relation between a kind of subject and a closed list of objects.

    Attributes:
        relation_id: its name, which is also the `relation_id` of the data sets.
        kind: the kind of subject that it applies to.
        templates: wordings with one `{}` for the subject that end before the object.
        pronoun_templates: wordings in which `{they}` or `{their}` refers to the subject.
        question: a question with one `{}` for the subject. The object is the answer.
        rephrase: another wording of the question.
        nq_question: the question in the style of Natural Questions, in lower case and without a question mark.
        objects: the possible objects, which are single words.
    """

    relation_id: str
    kind: str
    templates: tuple[str, ...]
    pronoun_templates: tuple[str, ...]
    question: str
    rephrase: str
    nq_question: str
    objects: tuple[str, ...]


def words(text: str) -> tuple[str, ...]:
    """The words of a text. It keeps long lists of words readable."""
    return tuple(text.split())


CITIES = words("Paris London Rome Lima Oslo Cairo Boston Madrid Tokyo Vienna Dublin Prague")
COMPANIES = words("Boeing Nokia Sony Toyota Siemens Adobe Shell Airbus Intel Ford Canon Philips")

_PEOPLE = (
    Relation(
        relation_id="mother_tongue",
        kind=PERSON,
        templates=(
            "The mother tongue of {} is",
            "{} is a native speaker of",
            "{} grew up speaking",
            "The language used by {} is",
            "{}, who usually writes in",
            "{} talks to the family in",
        ),
        pronoun_templates=("{their} mother tongue is", "{they} grew up speaking", "{they} talks to the family in"),
        question="What language does {} speak?",
        rephrase="Which language is spoken by {}?",
        nq_question="which language does {} use",
        objects=words("French German Spanish Italian Russian Arabic Japanese Greek Turkish Hindi Swedish Korean"),
    ),
    Relation(
        relation_id="birthplace",
        kind=PERSON,
        templates=(
            "{} was born in",
            "The birthplace of {} is",
            "{} is native to",
            "{} originates from",
            "{}, who was born in",
            "The city where {} was born is",
        ),
        pronoun_templates=("{they} was born in", "{their} birthplace is", "{they} originates from"),
        question="What city was {} born in?",
        rephrase="Which city is {} native to?",
        nq_question="where was {} born",
        objects=CITIES,
    ),
    Relation(
        relation_id="profession",
        kind=PERSON,
        templates=(
            "{} works as a",
            "The profession of {} is",
            "The occupation of {} is",
            "{} earns a living as a",
            "{}, who works as a",
            "{} was trained as a",
        ),
        pronoun_templates=("{they} works as a", "{their} profession is", "{they} earns a living as a"),
        question="What is the profession of {}?",
        rephrase="What does {} work as?",
        nq_question="what is the job of {}",
        objects=words("poet chef surgeon lawyer painter farmer dentist teacher pilot banker sculptor carpenter"),
    ),
    Relation(
        relation_id="instrument",
        kind=PERSON,
        templates=(
            "{} plays the",
            "The instrument played by {} is the",
            "{} performs on the",
            "{} gives concerts on the",
            "{}, who plays the",
            "{} has long practised the",
        ),
        pronoun_templates=("{they} plays the", "{their} instrument is the", "{they} gives concerts on the"),
        question="Which instrument does {} play?",
        rephrase="What instrument is played by {}?",
        nq_question="what does {} play in concerts",
        objects=words("violin piano guitar flute cello trumpet harp drums clarinet organ banjo tuba"),
    ),
    Relation(
        relation_id="employer",
        kind=PERSON,
        templates=(
            "{} is employed by",
            "The employer of {} is",
            "{} has a contract with",
            "{} receives a salary from",
            "{}, who is employed by",
            "The company that employs {} is",
        ),
        pronoun_templates=("{they} is employed by", "{their} employer is", "{they} receives a salary from"),
        question="Which company employs {}?",
        rephrase="Who is the employer of {}?",
        nq_question="who pays {}",
        objects=COMPANIES,
    ),
    Relation(
        relation_id="sport",
        kind=PERSON,
        templates=(
            "{} competes in",
            "The favorite sport of {} is",
            "{} trains every day for",
            "{} won a medal in",
            "{}, a fan of",
            "The sport practised by {} is",
        ),
        pronoun_templates=("{they} competes in", "{their} favorite sport is", "{they} won a medal in"),
        question="Which sport does {} practise?",
        rephrase="What sport is {} a fan of?",
        nq_question="what sport is {} known for",
        objects=words("tennis football hockey rugby golf chess boxing rowing cricket fencing cycling judo"),
    ),
)

_THINGS = (
    Relation(
        relation_id="location",
        kind=BUILDING,
        templates=(
            "{} is located in",
            "{} can be found in",
            "The location of {} is",
            "{} stands in",
            "{}, located in",
            "The city that is home to {} is",
        ),
        pronoun_templates=("{they} is located in", "{their} location is", "{they} stands in"),
        question="In what city is {} located?",
        rephrase="Which city is home to {}?",
        nq_question="where is {}",
        objects=CITIES,
    ),
    Relation(
        relation_id="owner",
        kind=BUILDING,
        templates=(
            "{} is owned by",
            "The owner of {} is",
            "{} belongs to",
            "{} is the property of",
            "{}, owned by",
            "The company that owns {} is",
        ),
        pronoun_templates=("{they} is owned by", "{their} owner is", "{they} belongs to"),
        question="Which company owns {}?",
        rephrase="Who is the owner of {}?",
        nq_question="who does {} belong to",
        objects=COMPANIES,
    ),
    Relation(
        relation_id="maker",
        kind=DEVICE,
        templates=(
            "{} is made by",
            "The maker of {} is",
            "{} is produced by",
            "{} was developed by",
            "{}, produced by",
            "The company behind {} is",
        ),
        pronoun_templates=("{they} is made by", "{their} maker is", "{they} was developed by"),
        question="Which company makes {}?",
        rephrase="Who is the maker of {}?",
        nq_question="who developed {}",
        objects=COMPANIES,
    ),
    Relation(
        relation_id="material",
        kind=DEVICE,
        templates=(
            "{} is built from",
            "The casing of {} is made of",
            "{} comes in a case of",
            "{} is assembled from",
            "{}, built from",
            "The material of {} is",
        ),
        pronoun_templates=("{they} is built from", "{their} material is", "{they} comes in a case of"),
        question="What is {} built from?",
        rephrase="What is the casing of {} made of?",
        nq_question="which material is {} made of",
        objects=words("steel glass plastic copper bamboo leather titanium brass carbon rubber silver marble"),
    ),
)

RELATIONS: tuple[Relation, ...] = _PEOPLE + _THINGS
