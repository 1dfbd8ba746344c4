"""A model that writes its own problems, answers them, keeps what it can verify, and trains on that.

    python lessons/11_data_quality/closing_the_circle.py                  three rounds on a nano model, no GPU needed
    python lessons/11_data_quality/closing_the_circle.py --rule none      the control: trains on whatever it wrote

Nobody hands it a problem or an answer, and no verifier here knows the right answers. The held-out problems of `--data`
only measure. All figures go to `summary.json` in the folder `--out`. Why it works: closing_the_circle.en.md (or .zh.md).
"""

from __future__ import annotations

import argparse
import re
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # so that `helpers` is found from anywhere

import unsloth  # first: it replaces parts of transformers and trl
import torch
from datasets import Dataset
from trl import SFTConfig, SFTTrainer
from unsloth import FastLanguageModel
from unsloth.chat_templates import train_on_responses_only

from helpers import data, generation, hub, memory, prompts, report, rewards, runtime
from helpers.nano import arithmetic

RULES = ("none", "vote", "vote+sums")
USER, ASSISTANT = "<|im_start|>user\n", "<|im_start|>assistant\n"  # of Qwen's chat template
SUM = re.compile(r"(\d+)\s*([-+*])\s*(\d+)\s*=\s*(\d+)")


# Write and answer


def sample(model, tokenizer, texts: Sequence[str], max_new_tokens: int, options: argparse.Namespace) -> list[str]:
    """What the model writes after each text at temperature 1; empty where it did not stop by itself."""
    FastLanguageModel.for_inference(model)
    plain = {"do_sample": True, "temperature": 1.0, "top_k": 0, "top_p": 1.0, "repetition_penalty": 1.0}
    written = generation.complete(model, tokenizer, texts, max_new_tokens, options.batch_size, **plain)
    return [one.text.strip() if one.stopped else "" for one in written]


def write_problems(model, tokenizer, options: argparse.Namespace) -> list[str]:
    """Problems of the model's own: it goes on where the user's turn begins (Magpie, arXiv 2406.08464)."""
    chat = tokenizer.apply_chat_template(prompts.gsm8k("QUESTION"), tokenize=False)
    opened = chat.partition("QUESTION")[0]
    return sample(model, tokenizer, [opened] * options.problems, options.problem_tokens, options)


def answer(model, tokenizer, questions: Sequence[str], options: argparse.Namespace) -> list[list[str]]:
    """A group of answers to each question."""
    texts = [
        tokenizer.apply_chat_template(prompts.gsm8k(question), tokenize=False, add_generation_prompt=True)
        for question in questions
        for _ in range(options.group)
    ]
    answers = sample(model, tokenizer, texts, options.answer_tokens, options)
    return [answers[start : start + options.group] for start in range(0, len(answers), options.group)]


# Keep what can be verified


def numbers(question: str) -> tuple[int, ...]:
    """The numbers that a question tells, sorted."""
    return tuple(sorted(map(int, re.findall(r"\d+", question))))


def sort_out(written: Sequence[str], seen: set[str], test: Sequence[str]) -> tuple[list[str], Counter]:
    """The problems worth answering, and how many fell out and why; all that was written is added to `seen`.

    Decontamination is by numbers: a problem that tells the same ones as a test question is thrown out. (For longer
    texts, common runs of words are looked for instead.)
    """
    forbidden = {numbers(question) for question in test}
    kept, fate = [], Counter()
    for question in written:
        if len(numbers(question)) < 2 or not question.endswith(("?", "？")):
            reason = "malformed"
        elif question in seen:
            reason = "repeated"
        elif numbers(question) in forbidden:
            reason = "in_the_test"
        else:
            reason = "new"
            kept.append(question)
        seen.add(question)
        fate[reason] += 1
    return kept, fate


def final(text: str) -> str | None:
    """The number that an answer in exact form gives; None for any other answer."""
    number = rewards.parse_number(rewards.extract_xml_answer(text)) if rewards.is_strict(text) else None
    return None if number is None else f"{number:f}"


def sums_hold(question: str, text: str) -> bool:
    """Whether the reasoning is right sums and nothing else, which use up the question's numbers and end in the answer."""
    at_hand = Counter(re.findall(r"\d+", question))
    for line in text.partition("<reasoning>")[2].partition("</reasoning>")[0].strip().splitlines():
        match = SUM.fullmatch(line.strip())
        if not match or Counter(match.group(1, 3)) - at_hand:
            return False
        a, operation, b, result = match.groups()
        if arithmetic.result(int(a), operation, int(b)) != int(result):
            return False
        at_hand = at_hand - Counter([a, b]) + Counter([result])
    return at_hand == Counter([final(text)])


def verify(question: str, answers: Sequence[str], rule: str, agreement: float) -> str | None:
    """The answer to learn from, or None.

    `none`: the first one, whatever it is. `vote`: the first that gives the number on which most agree, if at least
    the share `agreement` of all the answers give it. `vote+sums`: the first of those that `sums_hold` accepts.
    """
    if rule == "none":
        return answers[0] or None
    votes = Counter(number for number in map(final, answers) if number is not None)
    number, count = max(votes.items(), key=lambda item: item[1], default=("", 0))
    if not count or count < agreement * len(answers):
        return None
    agreeing = (text for text in answers if final(text) == number)
    return next((text for text in agreeing if rule == "vote" or sums_hold(question, text)), None)


# Train and measure


def train(model, tokenizer, pairs: Sequence[tuple[str, str]], options: argparse.Namespace) -> None:
    """Supervised fine-tuning of the adapter on questions and answers, as in lesson 01; the answers alone are learned."""
    FastLanguageModel.for_training(model)
    chats = [[*prompts.gsm8k(question), {"role": "assistant", "content": text}] for question, text in pairs]
    rows = Dataset.from_dict({"text": [tokenizer.apply_chat_template(chat, tokenize=False) for chat in chats]})
    config = SFTConfig(
        output_dir=f"{options.out}/checkpoints",
        dataset_text_field="text",
        max_length=options.max_length,
        per_device_train_batch_size=options.train_batch,
        gradient_accumulation_steps=1,  # on a GPU Unsloth's own default is 2
        max_steps=options.steps,
        learning_rate=options.learning_rate,
        lr_scheduler_type="linear",
        warmup_steps=5,
        weight_decay=0.01,
        bf16=runtime.dtype() == torch.bfloat16,
        fp16=runtime.dtype() == torch.float16,
        logging_strategy="no",
        disable_tqdm=True,
        save_strategy="no",
        report_to="none",
        seed=options.seed,
    )
    trainer = SFTTrainer(model=model, processing_class=tokenizer, train_dataset=rows, args=config)
    train_on_responses_only(trainer, instruction_part=USER, response_part=ASSISTANT).train()


def evaluate(model, tokenizer, test: Dataset, options: argparse.Namespace) -> dict[str, float]:
    """On the held-out problems: what is right at temperature 1, and by a vote; how many answers reason, and are then right.

    An answer reasons when it has the exact form and sums in it.
    """
    torch.manual_seed(options.seed)
    right, reasoned, votes = [], [], []
    for group, target in zip(answer(model, tokenizer, test["question"], options), test["target"], strict=True):
        right += [reward > 0 for reward in rewards.correctness_reward_func(group, target=[target] * len(group))]
        reasoned += [rewards.is_strict(text) and bool(SUM.search(text)) for text in group]
        votes.append(final(verify("", group, "vote", 0) or "") == target)
    return {
        "accuracy": sum(right) / len(right),
        "majority": sum(votes) / len(votes),
        "reasoned": sum(reasoned) / len(reasoned),
        "right_when_reasoned": sum(r for r, how in zip(right, reasoned) if how) / max(1, sum(reasoned)),
    }


def truth(question: str) -> str | None:
    """For the audit alone: the right answer to a problem in one of the nano world's wordings, else None.

    Empty where the story cannot happen, because more is taken away than there is.
    """
    for language, wordings in arithmetic.WORDINGS.items():
        names = {"who": arithmetic.PEOPLE[language], "things": arithmetic.THINGS[language]}
        for operations, forms in wordings.items():
            for form in forms:
                pattern = re.sub(r"\\{([abc])\\}", r"(?P<\1>\\d+)", re.escape(form))
                for name, words in names.items():
                    pattern = pattern.replace(rf"\{{{name}\}}", f"(?:{'|'.join(words)})")
                if match := re.fullmatch(pattern, question):
                    middle = arithmetic.result(int(match["a"]), operations[0], int(match["b"]))
                    result = arithmetic.result(middle, operations[1], int(match["c"]))
                    return str(result) if min(middle, result) >= 0 else ""
    return None


def one_round(model, tokenizer, seen: set[str], test: Dataset, options: argparse.Namespace) -> dict[str, float]:
    """Write, answer, verify, train, measure: the figures of one round."""
    problems, fate = sort_out(write_problems(model, tokenizer, options), seen, test["question"])
    groups = answer(model, tokenizer, problems, options)
    picked = [verify(question, group, options.rule, options.agreement) for question, group in zip(problems, groups)]
    pairs = [(question, text) for question, text in zip(problems, picked) if text]
    if not pairs:
        raise SystemExit(
            f"none of {len(problems)} problems was verified: lower --agreement, or write more (--problems)."
        )
    audited = [(truth(question), final(text)) for question, text in pairs if truth(question) is not None]
    train(model, tokenizer, pairs, options)
    return {
        "written": options.problems,
        **{reason: fate[reason] for reason in ("malformed", "repeated", "in_the_test", "new")},
        "solvable": sum(bool(truth(question)) for question in problems) / len(problems),
        "kept": len(pairs),
        "kept_right": sum(right == given for right, given in audited) / max(1, len(audited)),
        "kept_impossible": sum(right == "" for right, _ in audited) / max(1, len(audited)),
        "kept_reasoned": sum(bool(SUM.search(text)) for _, text in pairs) / len(pairs),
        **evaluate(model, tokenizer, test, options),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the rounds, show a row of figures after each, and keep them."""
    parser = argparse.ArgumentParser(formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    add = parser.add_argument
    add("--model", default="nano/qwen2-math-writer", help="with Qwen's chat template")
    add("--data", default="data_samples/gsm8k_en.jsonl", help="problems in GSM8K's format, for measuring only")
    add("--rounds", type=int, default=3)
    add("--rule", choices=RULES, default="vote+sums", help="what an answer must pass to be learned")
    add("--agreement", type=float, default=0.375, help="the share of a group that must give the same number")
    add("--problems", type=int, default=300, help="written each round")
    add("--group", type=int, default=8, help="answers to each problem")
    add("--steps", type=int, default=60, help="training steps a round")
    add("--learning-rate", type=float, default=2e-3, help="for a model of billions: 2e-4 and less")
    add("--held-out", type=int, default=200)
    add("--problem-tokens", type=int, default=48)
    add("--answer-tokens", type=int, default=40)
    add("--max-length", type=int, default=128)
    add("--batch-size", type=int, default=200, help="texts written at once")
    add("--train-batch", type=int, default=16)
    add("--seed", type=int, default=3407)
    add("--out", default="outputs/closing_the_circle")
    options = parser.parse_args(arguments)

    _, test = data.hold_out(data.load_gsm8k(options.data), options.held_out, options.seed, options.data)
    model, tokenizer = FastLanguageModel.from_pretrained(
        model_name=hub.resolve_model(options.model),
        max_seq_length=options.max_length,
        dtype=runtime.dtype(),
        load_in_4bit=False,
    )
    model = FastLanguageModel.get_peft_model(
        model,
        r=16,
        lora_alpha=16,
        lora_dropout=0,
        bias="none",
        target_modules=["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
        use_gradient_checkpointing="unsloth",
        random_state=options.seed,
    )
    before = evaluate(model, tokenizer, test, options)
    print("before", {name: round(value, 3) for name, value in before.items()}, flush=True)
    rounds, seen = [], set()
    for number in range(1, options.rounds + 1):
        torch.manual_seed(options.seed + number)
        with memory.track() as cost:
            figures = one_round(model, tokenizer, seen, test, options)
        rounds.append({**figures, "seconds": cost.seconds})
        print(f"round {number}", {name: round(value, 3) for name, value in rounds[-1].items()}, flush=True)
    report.summary(options.out, settings=vars(options), before=before, rounds=rounds)
    last = [before, *rounds][-1]
    print(f"accuracy {before['accuracy']:.1%} → {last['accuracy']:.1%}; {options.out}/summary.json")


if __name__ == "__main__":
    main()
