"""Makes this folder again: `python tests/golden_small/make.py` (two minutes on one core; see README.md).

A small GPT-2 is trained on a made-up town until it knows who plays and lives where; its weights are rounded to
float16. Then every number is computed in float64 by tests/editors/naive.py and tests/lm/naive_lm.py: whole passes of
the Hugging Face model over one text at a time, nothing of the package's own forward passes, editors or scoring.
"""

from __future__ import annotations

import copy
import json
import random
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent.parent), str(HERE.parent / "editors"), str(HERE.parent / "lm")]

import naive  # noqa: E402
import naive_lm  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers  # noqa: E402
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast  # noqa: E402

from romexp.facts import EditRequest  # noqa: E402
from romexp.lm.model import LanguageModel, PretrainedModel  # noqa: E402

FIRST = ("Anna", "Bertil", "Corin", "Dalia", "Edvard", "Fenna")
LAST = ("Moss", "Lindqvist", "Okoro", "Varga")
OBJECTS = {
    "instrument": ("piano", "violin", "double bass", "flute", "drum kit"),
    "home": ("Oslo", "New Haven", "Lima", "Turin", "Port Elgin"),
}
SENTENCES = {
    "instrument": ("{} plays the", "The instrument of {} is the", "{} gives concerts on the"),
    "home": ("{} lives in", "The home of {} is in", "{} came to live in"),
}
LAYER, CLAMP, STEPS = 1, 3.0, 900
CONTEXTS = (
    "{}",
    "The concert was long. {}",
    "Anna Moss lives in. {}",
    "It rains. {}",
    "The home of Fenna. {}",
    "Many people came from Lima. {}",
)
FT = {"ft": {"layer": 1, "norm_constraint": None}, "ft_l": {"layer": 0, "norm_constraint": 2e-3}}


def town() -> dict[str, dict[str, str]]:
    """relation → person → object."""
    people = [f"{first} {last}" for first in FIRST for last in LAST]
    rng = random.Random(0)
    return {relation: {person: rng.choice(objects) for person in people} for relation, objects in OBJECTS.items()}


def sentence(facts: dict[str, dict[str, str]], rng: random.Random) -> str:
    relation = rng.choice(list(facts))
    person = rng.choice(list(facts[relation]))
    if rng.random() < 0.05:
        return f"{person} is a {rng.choice(('player', 'person of the town'))}."
    return f"{rng.choice(SENTENCES[relation]).format(person)} {facts[relation][person]}."


def make_tokenizer(texts: list[str]) -> PreTrainedTokenizerFast:
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    inner.post_processor = processors.ByteLevel(trim_offsets=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=330, special_tokens=["<|endoftext|>"], initial_alphabet=alphabet, show_progress=False
    )
    inner.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<|endoftext|>")


def train(tokenizer: PreTrainedTokenizerFast, facts: dict[str, dict[str, str]]) -> GPT2LMHeadModel:
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=len(tokenizer),
        n_positions=64,
        n_embd=32,
        n_layer=4,
        n_head=4,
        n_inner=64,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=0,
        eos_token_id=0,
    )
    model, rng = GPT2LMHeadModel(config), random.Random(1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=4e-3, total_steps=STEPS)
    for step in range(STEPS):
        texts = [" ".join(sentence(facts, rng) for _ in range(5)) for _ in range(32)]
        ids = torch.tensor(
            [tokenizer(text)["input_ids"][:48] for text in texts if len(tokenizer(text)["input_ids"]) >= 48]
        )
        loss = model(input_ids=ids, labels=ids).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 100 == 0:
            print(step, round(float(loss.detach()), 3), flush=True)
    return model.half()


def second_moment(lm: LanguageModel, facts: dict[str, dict[str, str]]) -> np.ndarray:
    """E[k kᵀ] over the tokens of 300 texts."""
    rng, keys = random.Random(2), []
    handle = lm.module(lm.architecture.mlp_out_name(LAYER)).register_forward_hook(
        lambda _m, x, _y: keys.append(x[0][0])
    )
    for _ in range(300):
        naive_lm.all_logits(lm, naive_lm.tokens(lm, " ".join(sentence(facts, rng) for _ in range(4)))[:64])
    handle.remove()
    stacked = torch.cat(keys)
    return (stacked.T @ stacked / len(stacked)).float().numpy()


def records(facts: dict[str, dict[str, str]]) -> list[dict[str, Any]]:
    """Six counterfactual edits in the CounterFact schema, with fewer prompts."""
    rng, made = random.Random(3), []
    for case_id in range(6):
        relation = list(facts)[case_id % 2]
        person = rng.choice(list(facts[relation]))
        true = facts[relation][person]
        new = rng.choice([o for o in OBJECTS[relation] if o != true])
        others = [p for p in facts[relation] if p != person]
        rewrite, paraphrase, other = rng.sample(SENTENCES[relation], 3)
        same = [p for p in others if facts[relation][p] == true][:3]
        wanted = [p for p in others if facts[relation][p] == new][:2]
        made.append(
            {
                "case_id": case_id,
                "requested_rewrite": {
                    "prompt": rewrite,
                    "relation_id": relation,
                    "target_new": {"str": new, "id": new},
                    "target_true": {"str": true, "id": true},
                    "subject": person,
                },
                "paraphrase_prompts": [f"It rains in Lima. {paraphrase.format(person)}", other.format(person)],
                "neighborhood_prompts": [rewrite.format(p) for p in same],
                "attribute_prompts": [paraphrase.format(p) for p in wanted],
                "generation_prompts": [other.format(person)],
            }
        )
    return made


def prompts_of(record: dict[str, Any]) -> dict[str, list[str]]:
    rewrite = record["requested_rewrite"]
    kinds = ("paraphrase_prompts", "neighborhood_prompts", "attribute_prompts")
    return {"rewrite_prompts": [rewrite["prompt"].format(rewrite["subject"])]} | {kind: record[kind] for kind in kinds}


def nlls(lm: LanguageModel, record: dict[str, Any]) -> dict[str, list[list[float]]]:
    targets = [record["requested_rewrite"][name]["str"] for name in ("target_new", "target_true")]
    return {
        kind: [
            [float(np.mean(naive_lm.target_nlls(lm, prompt, target)[0])) for target in targets] for prompt in prompts
        ]
        for kind, prompts in prompts_of(record).items()
    }


def changed(lm: LanguageModel, changes: dict[str, torch.Tensor]) -> LanguageModel:
    """A copy with these changes added to its weights (as GPT-2 stores them)."""
    model = copy.deepcopy(lm.model)
    with torch.no_grad():
        for name, change in changes.items():
            model.get_parameter(name).add_(change)
    return LanguageModel(model=model, tokenizer=lm.tokenizer, architecture=lm.architecture, name=lm.name)


def texts_of(lm: LanguageModel, record: dict[str, Any]) -> list[str]:
    """Two samples of 24 tokens, seeds 0 and 1."""
    ids = naive_lm.tokens(lm, record["generation_prompts"][0])
    out = []
    for seed in (0, 1):
        uniforms = torch.rand(24 - len(ids), generator=torch.Generator().manual_seed(seed)).tolist()
        out.append(lm.tokenizer.decode(naive_lm.sample(lm, ids, uniforms=uniforms, top_k=5)))
    return out


def numbers(lm: LanguageModel, moment: torch.Tensor, made: list[dict[str, Any]]) -> None:
    us, rights, scores, samples = [], [], [], []
    for record in made:
        rewrite = record["requested_rewrite"]
        request = EditRequest(
            subject=rewrite["subject"],
            prompt=rewrite["prompt"],
            target_new=rewrite["target_new"]["str"],
            target_true=rewrite["target_true"]["str"],
        )
        rome = naive.rome(lm, request, CONTEXTS, layer=LAYER, moment=moment, clamp=CLAMP)
        edited = changed(lm, {f"{lm.architecture.mlp_out_name(LAYER)}.weight": torch.outer(rome.u, rome.right)})
        row = {"case_id": record["case_id"], "pre": nlls(lm, record), "rome": nlls(edited, record)}
        for name, settings in FT.items():
            module = lm.architecture.mlp_out_name(settings["layer"])
            tuned, losses = naive.finetune(
                lm, request, trained=lambda p, module=module: module in p, bound=settings["norm_constraint"]
            )
            row[name] = nlls(changed(lm, tuned), record)
            print(name, len(losses), losses[0], losses[-1])
        print("rome", len(rome.losses), rome.losses[0], rome.losses[-1], float(rome.delta.norm()))
        print({kind: np.round(np.array(row[kind]["rewrite_prompts"]), 2).tolist() for kind in row if kind != "case_id"})
        us.append(rome.u.numpy())
        rights.append(rome.right.numpy())
        scores.append(row)
        samples.append({"case_id": record["case_id"], "pre": texts_of(lm, record), "rome": texts_of(edited, record)})
    ids = np.array([record["case_id"] for record in made])
    np.savez(HERE / "rome.npz", case_id=ids, u=np.stack(us), right=np.stack(rights))
    (HERE / "nll.json").write_text(json.dumps(scores, indent=1))
    (HERE / "texts.json").write_text(json.dumps(samples, indent=1))


def main() -> None:
    facts = town()
    rng = random.Random(4)
    tokenizer = make_tokenizer([sentence(facts, rng) for _ in range(500)])
    train(tokenizer, facts).save_pretrained(HERE / "model")
    tokenizer.save_pretrained(HERE / "model")
    lm = PretrainedModel(path=str(HERE / "model"), dtype="float64", device="cpu").load()
    moment = second_moment(lm, facts)
    made = records(facts)
    np.savez(HERE / f"covariance_layer{LAYER}.npz", moment=moment)
    (HERE / "contexts.json").write_text(json.dumps(CONTEXTS, indent=1))
    (HERE / "records.json").write_text(json.dumps(made, indent=1))
    numbers(lm, torch.tensor(moment), made)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
