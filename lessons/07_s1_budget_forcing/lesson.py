# %% [markdown] lang="en"
# How long should a model think? Until now it decided for itself. Here you decide, without training it again: cut its thoughts short and it must answer; leave out its "I am done", write "Wait" instead, and it thinks on. That is **budget forcing**, from the paper *s1: Simple test-time scaling* (arXiv 2501.19393). It comes after a fine-tune on a hundred rows or so, chosen with care.
#
# **For** those who have done lessons 01 and 03.
# **At the end you have** `generate_with_budget`, for Hugging Face and vLLM; a curve of accuracy against thinking tokens, measured on held-out questions, cuts and extensions alike; a selection of training rows by quality, difficulty and diversity; and the controls that keep you honest.
#
# The steps, the same in every lesson: parameters → machine → data → load → before → LoRA → train → after → save.

# %% [markdown] lang="zh"
# 模型该想多久？前面几课都由它自己定。这一课由你来定，而且不用再训练：想到一半掐断，它就必须作答；它说「想完了」，你把这句拿掉，换上一个「Wait」，它就接着想。这就是**预算强制**（budget forcing），出自论文 *s1: Simple test-time scaling*（arXiv 2501.19393）。在此之前，先用精挑细选的少量数据做一次微调。
#
# **适合谁**：学过第 01 课和第 03 课的人。
# **学完你会得到**：一个 `generate_with_budget`，Hugging Face 和 vLLM 都能用；一条在留出题上实测的「正确率–思考 token」曲线，掐短和延长都在上面；一套按质量、难度、多样性挑训练数据的方法；还有几个对照实验，免得自己骗自己。
#
# 每一课都是同样的步骤：参数 → 机器 → 数据 → 加载 → 训练前 → LoRA → 训练 → 训练后 → 保存。

# %% [markdown] lang="en"
# ## 1 · Parameters
#
# `CAPS` are the budgets at which thinking is cut, in tokens; `WAITS` how many ends are suppressed. Be modest in what you expect of 1.5 billion parameters: s1 saw its gains at 32 billion.
#
# With `FAST_INFERENCE = True` vLLM writes what `generate_with_budget` asks for; the plain answers of section 5 and the loop by hand stay with `generate`. The cells stay the same.

# %% [markdown] lang="zh"
# ## 1 · 参数
#
# `CAPS` 是掐断思考的几档预算（token 数）；`WAITS` 是要拦下几次「想完了」。15 亿参数的模型别期望太高：s1 的提升是在 320 亿参数上看到的。
#
# `FAST_INFERENCE = True` 时，`generate_with_budget` 改由 vLLM 来写；第 5 节的直接作答和手写的那段循环仍用 `generate`。代码一格不改。

# %% tags=["parameters"]
MODEL = "unsloth/Qwen2.5-1.5B-Instruct-bnb-4bit"  # Hub name, folder, or nano/qwen2-running
MODEL_SOURCE = "huggingface"  # or "modelscope"
DATASET = "simplescaling/s1K-1.1"  # or simplescaling/s1K, or a .jsonl file in either format
POOL = 300  # its first rows, to choose from
SELECT = 120  # how many of them are chosen
EVAL_DATASET = "openai/gsm8k"  # held-out questions, or a .jsonl file
HELD_OUT = 48  # how many of those
OUTPUT_DIR = "outputs/07_s1_budget_forcing"
MAX_SEQ_LENGTH = 4096  # tokens; question, thoughts and answer together
LOAD_IN_4BIT = True
GRADIENT_CHECKPOINTING = True  # recompute instead of remember; False is faster, where memory allows
FAST_INFERENCE = False  # True lets vLLM generate
VLLM_MEMORY = 0.5  # its share of the GPU's memory
BEGIN = "<think>\n"  # opens the thinking
END = "</think>"  # ends it; s1 itself used <|im_start|>answer
WAIT = "Wait"
OTHER_WORD = "Done"  # a control, written in place of WAIT
CAPS = [0, 64, 256, 1024]
WAITS = [1, 2, 4]
VOTES = 5  # answers a question for the majority vote
MAX_ANSWER_TOKENS = 256  # after the thinking
MAX_PLAIN_TOKENS = 512  # before training, when thought and answer are one
EVAL_BATCH = 24  # questions answered at once; memory decides
QUESTION = "How many r are in raspberry?"
MAX_STEPS = 60
BATCH_SIZE = 1
GRADIENT_ACCUMULATION = 8
LEARNING_RATE = 2e-4
LORA_RANK = 16
COMPARE_WITH_RANDOM = False  # True trains once more, on rows drawn at random
SEED = 3407
VRAM_GB = 12
DISK_GB = 8

# %% [markdown] lang="en"
# ## 2 · The machine

# %% [markdown] lang="zh"
# ## 2 · 机器

# %%
from helpers import parameters, runtime

parameters.check(globals())
runtime.require(
    vram_gb=VRAM_GB,
    disk_gb=DISK_GB,
    folder=OUTPUT_DIR,
    vllm=FAST_INFERENCE,
    unsloth=True,
    models=[MODEL],
    source=MODEL_SOURCE,
)
print(runtime.describe())

# %%
import unsloth  # before transformers and trl
import pandas as pd
import torch
from transformers import set_seed
from trl import SFTConfig, SFTTrainer
from unsloth import FastLanguageModel
from unsloth.chat_templates import train_on_responses_only

from helpers import data, export, generation, hub, memory, reasoning, report

# %% [markdown] lang="en"
# ## 3 · Data
#
# A row of s1K is a question, a reasoning trace written by a larger model, the answer that the trace came to (`deepseek_attempt`), and the reference. The attempt may be **wrong**: the trace is kept for how it thinks.
#
# The questions of the evaluation come from another file, GSM8K's training split, so none of them is trained on here. The base model may have met them before: compare the runs with each other, not with published figures.

# %% [markdown] lang="zh"
# ## 3 · 数据
#
# s1K 的一行是：一道题、一段由大模型写的思考过程、它得出的答案（`deepseek_attempt`），以及参考答案。模型得出的答案**可能是错的**：留着它，是要学它怎么想。
#
# 用来评测的题在另一个文件里（GSM8K 的训练集），这一课一道也不拿来训练。不过基座模型以前可能见过，所以只拿各次运行互相比，别和公开成绩比。

# %%
pool = data.load_s1k(DATASET, limit=POOL)
data.report_marks(pool, "{question}" + BEGIN + "{thinking}" + END + "{answer}")  # rows that forge a turn, if any
held_out = data.load_gsm8k(EVAL_DATASET)
held_out = held_out.shuffle(seed=SEED).select(range(min(HELD_OUT, len(held_out))))
print(f"{len(pool)} rows to choose from, {len(held_out)} held-out questions")
shown = pool.select_columns(["question", "thinking", "answer", "solution", "domain"])
report.side_by_side(({name: text[:400] for name, text in row.items()} for row in shown), 4)

# %% [markdown] lang="en"
# ### Choosing rows, first criterion: quality
#
# The paper began with 59,029 questions and kept 1,000. First went what is broken: calls that had failed, then faults of form: drawings in letters, references to pictures that are not there, muddled numbering. A few patterns do it.

# %% [markdown] lang="zh"
# ### 挑数据，第一条：质量
#
# 论文从 59,029 道题里挑出 1,000 道。最先扔掉的是坏数据：接口调用失败的；再就是格式有毛病的：字符拼的图、引用了并不存在的图片、编号错乱。几条正则就够了。

# %%
import re

FAULTS = {
    "no trace or answer": lambda row: not (row["thinking"].strip() and row["answer"].strip()),
    "failed call": lambda row: re.search(r"\bError \d{3}\b|Traceback", row["thinking"][:200]),
    "garbled": lambda row: "\ufffd" in row["thinking"] + row["answer"],
    "missing picture": lambda row: re.search(r"!\[.*?\]\(|<img|\[asy\]", row["question"] + row["thinking"]),
    "drawing in letters": lambda row: re.search(r"[+|][-=]{3,}[+|]", row["question"] + row["thinking"]),
    "muddled numbering": lambda row: re.match(r"\s*[2-9]\.\s*\([a-z]\)", row["thinking"]),
}


def fault(row):
    """The first fault that a row has, or None."""
    return next((name for name, has in FAULTS.items() if has(row)), None)


pd.Series([fault(row) or "usable" for row in pool]).value_counts().to_frame("rows")

# %%
usable = [row for row in pool if not fault(row)]
broken = next(row for row in pool if fault(row))
print(f"{len(pool)} → {len(usable)} rows. One that went ({fault(broken)}):\n")
print(broken["thinking"][:300], "→", broken["answer"][:100])

# %% [markdown] lang="en"
# ## 4 · Load the model
#
# With `FAST_INFERENCE` vLLM starts beside it and shares the weights.

# %% [markdown] lang="zh"
# ## 4 · 加载模型
#
# 打开 `FAST_INFERENCE` 时，vLLM 一并启动，和它共用同一份权重。

# %%
dtype = runtime.dtype()
vllm = {"fast_inference": True, "gpu_memory_utilization": VLLM_MEMORY, "max_lora_rank": LORA_RANK}
memory.free("model", "trainer")  # of an earlier run
model, tokenizer = FastLanguageModel.from_pretrained(
    model_name=hub.resolve_model(MODEL, MODEL_SOURCE),
    max_seq_length=MAX_SEQ_LENGTH,
    dtype=dtype,
    load_in_4bit=LOAD_IN_4BIT,
    **(vllm if FAST_INFERENCE else {}),
)
print(f"{model.num_parameters():,} parameters in {model.get_memory_footprint() / 1024**2:,.1f} MiB, on {model.device}")


# %%
def to_prompt(question):
    messages = [{"role": "user", "content": question}]
    return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)


def to_text(row):
    """What is trained on: question, thoughts, delimiter, answer, and the end token."""
    thoughts = row["thinking"].rstrip() + f"\n{END}\n\n" + row["answer"].strip()
    return to_prompt(row["question"]).removesuffix(BEGIN) + BEGIN + thoughts + tokenizer.eos_token  # R1's ends with it


print(to_text(usable[0])[:1500])
print(f"\nthe delimiter is {len(tokenizer.encode(END, add_special_tokens=False))} token(s)")

# %% [markdown] lang="en"
# ## 5 · Before training
#
# The model as it comes, asked in the plain way: the rows to choose from, and the held-out questions.

# %% [markdown] lang="zh"
# ## 5 · 训练之前
#
# 原样的模型，按平常的方式问：待挑的题和留出的题都问一遍。


# %%
def answer_plainly(questions):
    FastLanguageModel.for_inference(model)
    texts = [to_prompt(question) for question in questions]
    return generation.complete(model, tokenizer, texts, MAX_PLAIN_TOKENS, EVAL_BATCH, repetition_penalty=1.0)


before = answer_plainly(held_out["question"])
right_before = [reasoning.same_answer(a.text, target) for a, target in zip(before, held_out["target"])]
accuracy_before = sum(right_before) / len(right_before)
print(f"right before training: {accuracy_before:.1%}\n\n{held_out['question'][0]}\n{before[0].text}")

# %% [markdown] lang="en"
# ### Second criterion: difficulty
#
# What the model can do already teaches it little. The paper asked two models, Qwen2.5-7B and -32B, and dropped every question that either had right. Here the model that is to be trained is asked itself.

# %% [markdown] lang="zh"
# ### 第二条：难度
#
# 已经会的题，再学也学不到什么。论文让 Qwen2.5-7B 和 32B 两个模型各做一遍，有一个做对就扔掉。这里就让要训练的模型自己做。

# %%
tried = answer_plainly([row["question"] for row in usable])
verdicts = [reasoning.same_answer(a.text, row["solution"]) for a, row in zip(tried, usable)]
hard = [row for row, right in zip(usable, verdicts) if not right]
print(
    f"{len(usable)} → {len(hard)} rows: {verdicts.count(True)} answered rightly, {verdicts.count(None)} not to be judged"
)
lengths = {
    name: [len(tokenizer.encode(row["thinking"])) for row in rows]
    for name, rows in (("usable", usable), ("hard", hard))
}
pd.DataFrame({name: pd.Series(n).describe() for name, n in lengths.items()}).loc[["count", "mean", "50%", "max"]].round(
    0
)

# %% [markdown] lang="en"
# ### Third criterion: diversity
#
# First of all, rows must fit: one that is cut off loses its answer and its end. Then draw a *domain*, each as likely as the other, and in it a row, the long traces first: each place further down the list is half as likely. The paper's domains are subjects of mathematics, named by Claude; the published files only tell the source.

# %% [markdown] lang="zh"
# ### 第三条：多样性
#
# 先要放得下：被截断的样本会丢掉答案和结尾。然后先抽**领域**，各领域机会均等；再在领域里抽题，思考长的优先：名次每往后一位，机会减半。论文的领域是数学学科，由 Claude 标注；公开的文件里只有来源。

# %%
import random


def diverse(rows, number, seed):
    """`number` rows: a domain drawn evenly, in it one of the longer traces."""
    rng, chosen, domains = random.Random(seed), [], {}
    for row in sorted(rows, key=lambda row: len(row["thinking"]), reverse=True):
        domains.setdefault(row["domain"], []).append(row)
    while domains and len(chosen) < number:
        name = rng.choice(sorted(domains))
        place = rng.choices(range(len(domains[name])), [2.0**-rank for rank in range(len(domains[name]))])[0]
        chosen.append(domains[name].pop(place))
        if not domains[name]:
            del domains[name]
    return chosen


fits = [row for row in hard if len(tokenizer.encode(to_text(row))) <= MAX_SEQ_LENGTH]
selected = diverse(fits, SELECT, SEED)
print(f"{len(hard) - len(fits)} of {len(hard)} hard rows are longer than {MAX_SEQ_LENGTH:,} tokens and are left out")

# %%
stages = {"all": list(pool), "quality": usable, "difficulty": hard, "fits": fits, "diversity": selected}
funnel = pd.DataFrame(
    {name: pd.Series([row["domain"] for row in rows]).value_counts() for name, rows in stages.items()}
)
funnel = funnel.fillna(0).astype(int)
funnel.loc["rows"] = funnel.sum()
funnel.loc["of 59,029 in the paper"] = ["59,029", "51,581", "24,496", "–", "1,000"]
funnel

# %% [markdown] lang="en"
# ## 6 · LoRA

# %% [markdown] lang="zh"
# ## 6 · LoRA

# %%
from peft import PeftModel, get_peft_model_state_dict, set_peft_model_state_dict

if not isinstance(model, PeftModel):  # else this cell runs again: the adapter is there, and perhaps trained
    model = FastLanguageModel.get_peft_model(
        model,
        r=LORA_RANK,
        lora_alpha=LORA_RANK,
        lora_dropout=0,
        bias="none",
        target_modules=["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
        use_gradient_checkpointing="unsloth" if GRADIENT_CHECKPOINTING else False,
        random_state=SEED,
    )
    untrained = {name: weight.clone() for name, weight in get_peft_model_state_dict(model).items()}
model.print_trainable_parameters()

# %% [markdown] lang="en"
# ## 7 · Train
#
# Plain SFT. Only thoughts and answer count for the loss, as in the paper; the question is masked (grey below).

# %% [markdown] lang="zh"
# ## 7 · 训练
#
# 就是普通的 SFT。和论文一样，只有思考和答案计入损失，题目被遮住（下面灰色的部分）。

# %%
config = SFTConfig(
    output_dir=f"{OUTPUT_DIR}/checkpoints",
    dataset_text_field="text",
    max_length=MAX_SEQ_LENGTH,
    gradient_checkpointing=GRADIENT_CHECKPOINTING,
    per_device_train_batch_size=BATCH_SIZE,
    gradient_accumulation_steps=GRADIENT_ACCUMULATION,
    max_steps=MAX_STEPS,
    learning_rate=LEARNING_RATE,
    warmup_steps=5,
    bf16=dtype == torch.bfloat16,
    fp16=dtype == torch.float16,
    logging_steps=1,
    save_strategy="no",
    report_to="none",
    seed=SEED,
)

# %%
from datasets import Dataset


def trainer_for(rows):
    """A trainer for these rows, from the untrained adapter on."""
    set_peft_model_state_dict(model, untrained)
    texts = Dataset.from_dict({"text": [to_text(row) for row in rows]})
    trainer = SFTTrainer(model=model, processing_class=tokenizer, train_dataset=texts, args=config)
    asked = "<|im_start|>user\n"  # of Qwen's chat template
    return train_on_responses_only(trainer, instruction_part=asked, response_part=BEGIN)


# %%
trainer = trainer_for(selected)
batch = next(iter(trainer.get_train_dataloader()))
report.label_mask(tokenizer, batch["input_ids"][0][:400], batch["labels"][0][:400])

# %%
with memory.track() as cost:
    trainer.train()
print(cost)
log = trainer.state.log_history
report.loss_plot(log)

# %% [markdown] lang="en"
# Save now: vLLM shares the frozen weights but not the adapter, which is what was trained. It is given the adapter's folder, and each request names it.

# %% [markdown] lang="zh"
# 现在就保存：vLLM 那边看不到刚才训练的东西。要把适配器的文件夹交给它，每次请求再写明用哪个适配器。


# %%
from pathlib import Path


def adapter_for_vllm(name):
    """Save the adapter; what vLLM is to be told of it, None without vLLM."""
    folder = Path(OUTPUT_DIR, name).resolve()
    with export.replacing(folder) as new:  # whole, or not at all
        model.save_pretrained(new)
        tokenizer.save_pretrained(new)
    return model.load_lora(str(folder)) if FAST_INFERENCE else None


adapter = adapter_for_vllm("adapter")
print(*sorted(file.name for file in Path(OUTPUT_DIR, "adapter").iterdir()), sep="\n")

# %% [markdown] lang="en"
# ## 8 · After training: decide how long it thinks
#
# First the loop by hand, on one question. It is all there is to budget forcing: **generate until the delimiter; leave the delimiter out; write "Wait"; generate on.**

# %% [markdown] lang="zh"
# ## 8 · 训练之后：由你决定它想多久
#
# 先拿一道题手动做一遍。预算强制就这么几步：**生成，直到出现思考结束符（`END`，不是 EOS）；把它去掉；写上「Wait」；接着生成。**

# %%
FastLanguageModel.for_inference(model)
text = to_prompt(QUESTION).removesuffix(BEGIN) + BEGIN
for turn in range(2):
    written = generation.complete(model, tokenizer, [text], MAX_SEQ_LENGTH // 4, repetition_penalty=1.0)[0].text
    thought = written.partition(END)[0]
    print(f"--- turn {turn + 1}, {tokenizer.eos_token!r} or {END} after:\n{thought}")
    text += thought + WAIT
    print(f">>> {WAIT}")

# %% [markdown] lang="en"
# `generate_with_budget` does the same for a batch, with everything that comes in the way: a delimiter of several tokens, an end token instead of a delimiter, thoughts that reach the cap in the middle of a word, a budget larger than the context.

# %% [markdown] lang="zh"
# `generate_with_budget` 把这件事成批地做，沿途的坑都替你填上：结束符要好几个 token 才拼成；模型不写结束符、直接写了 EOS；想到一半到了上限；预算比上下文还大。


# %%
def think(questions, cap=None, ignore=0, **options):
    """Answers to the questions, thought about for at most `cap` tokens, or past `ignore` ends."""
    FastLanguageModel.for_inference(model)
    set_seed(SEED)
    return reasoning.generate_with_budget(
        model,
        tokenizer,
        [to_prompt(question) for question in questions],
        max_thinking_tokens=cap,
        num_ignore=ignore,
        begin=BEGIN,
        end=END,
        max_answer_tokens=MAX_ANSWER_TOKENS,
        batch_size=EVAL_BATCH,
        lora_request=adapter,
        **({"wait": WAIT} | options),
    )


# %% [markdown] lang="en"
# ### The raspberry
#
# The paper's figure: asked how many r there are in *raspberry*, the model first says 2; its end is suppressed, "Wait" written; it counts again and says 3.
#
# The nano model of the trimmed run gets the word spelled out and numbered, and was taught to give up after seven letters. There it has counted two.

# %% [markdown] lang="zh"
# ### raspberry 里有几个 r
#
# 论文里那张有名的图：问 *raspberry* 里有几个 r，模型先说 2 个；拦下它的结束符，写上「Wait」，它再数一遍，说 3 个。
#
# 精简运行用的纳米模型，题目里的单词是拆成字母、编了号的，而且它学的就是数到第七个字母便收工，这时正好数到两个。

# %%
cases = {"no thinking": think([QUESTION], 0)[0], "as it likes": think([QUESTION])[0]}
cases[f"1 × {WAIT}"] = think([QUESTION], ignore=1)[0]
report.side_by_side([{"run": name, "thinking": case.thinking, "answer": case.answer} for name, case in cases.items()])

# %% [markdown] lang="en"
# ### The curve
#
# All held-out questions at every budget, greedily. `error` is the standard error of a share, √(p(1−p)/n): differences smaller than two of them are noise.

# %% [markdown] lang="zh"
# ### 曲线
#
# 所有留出题，在每一档预算下都答一遍，贪心解码。`error` 是比例的标准误 √(p(1−p)/n)：差距不到两个标准误，就当是噪声。

# %%
import time

runs = []


def add_run(kind, name, tokens, right, **more):
    """A line in `runs`: mean thinking tokens, the share that is right, and its standard error."""
    share = sum(right) / len(right)
    error = (share * (1 - share) / len(right)) ** 0.5
    runs[:] = [run for run in runs if run["run"] != name]  # its cell may run again
    runs.append({"kind": kind, "run": name, "tokens": tokens, "accuracy": share, "error": error} | more)


def measure(kind, name, cap=None, ignore=0, **options):
    """Answer every held-out question within a budget, and add the run."""
    began = time.perf_counter()
    answers = think(held_out["question"], cap, ignore, **options)
    seconds = time.perf_counter() - began
    right = [reasoning.same_answer(a.answer, target) for a, target in zip(answers, held_out["target"])]
    within = sum(a.thinking_tokens <= a.budget for a in answers) / len(answers)
    tokens, cut = sum(a.thinking_tokens for a in answers) / len(answers), sum(a.cut for a in answers)
    add_run(kind, name, tokens, right, within=within, cut=cut, seconds=seconds)
    return answers


# %%
for cap in CAPS:
    measure("cut", f"at most {cap}", cap)
natural = measure("as it likes", "as it likes")
extended = [measure("extended", f"{ignore} suppressed", ignore=ignore) for ignore in WAITS]
pd.DataFrame(runs).round(3)

# %%
report.budget_plot(runs)

# %% [markdown] lang="en"
# The paper measures three things. **Control**: how often the thinking stays within the budget. **Scaling**: the mean slope between all pairs of points; it must be positive to be worth anything. **Performance**: the best accuracy reached.

# %% [markdown] lang="zh"
# 论文看三个指标。**控制**：思考长度有多少次落在预算之内。**扩展**：曲线上任意两点连线的平均斜率，为正才有意义。**性能**：达到的最高正确率。

# %%
from itertools import combinations


def slope(points):
    """The mean slope over all pairs of points (tokens, accuracy); pairs at the same tokens are left out."""
    slopes = [(b[1] - a[1]) / (b[0] - a[0]) for a, b in combinations(sorted(points), 2) if b[0] > a[0]]
    return sum(slopes) / len(slopes)


ours = [run for run in runs if run["kind"] in ("cut", "as it likes", "extended")]
curve = [(run["tokens"], run["accuracy"]) for run in ours]
control = sum(run["within"] for run in ours) / len(ours)
scaling, performance = slope(curve), max(accuracy for _, accuracy in curve)
print(f"control      {control:.0%} of the answers within their budget")
print(f"scaling      {100 * scaling:+.2f} points of accuracy per thinking token")
print(f"performance  {performance:.1%} right at best")

# %% [markdown] lang="en"
# For orientation, the paper's own figures (arXiv 2501.19393, table 1), in percent:
#
# | | trained on | AIME24 | MATH500 | GPQA Diamond |
# |---|---|---|---|---|
# | Qwen2.5-32B-Instruct, where s1 began | – | 26.7 | 84.0 | 49.0 |
# | o1-preview | not published | 44.6 | 85.5 | 73.3 |
# | o1 | not published | 74.4 | 94.8 | 77.3 |
# | DeepSeek-R1 | much more than 800,000 rows | 79.8 | 97.3 | 71.5 |
# | s1-32B, budget forcing | 1,000 rows | 56.7 | 93.0 | 59.6 |

# %% [markdown] lang="zh"
# 论文自己的数字供参考（arXiv 2501.19393，表 1，单位 %）：
#
# | | 训练数据 | AIME24 | MATH500 | GPQA Diamond |
# |---|---|---|---|---|
# | Qwen2.5-32B-Instruct（s1 的底子） | – | 26.7 | 84.0 | 49.0 |
# | o1-preview | 未公开 | 44.6 | 85.5 | 73.3 |
# | o1 | 未公开 | 74.4 | 94.8 | 77.3 |
# | DeepSeek-R1 | 远不止 80 万条 | 79.8 | 97.3 | 71.5 |
# | s1-32B，预算强制 | 1,000 条 | 56.7 | 93.0 | 59.6 |

# %% [markdown] lang="en"
# ### Two controls
#
# **Is it the word?** Another word in its place, the end suppressed all the same. **Is it only the tokens?** The same tokens spent side by side: several answers at temperature 1, the majority wins. The paper calls the one *sequential* scaling and the other *parallel*.

# %% [markdown] lang="zh"
# ### 两个对照
#
# **是不是这个词的功劳？** 同样拦下结束符，换一个词写上。**是不是只要多花 token 就行？** 把同样多的 token 并排花掉：温度 1 采样几个回答，少数服从多数。论文把前者叫**串行**扩展，后者叫**并行**扩展。

# %%
other = measure("other word", "1, other word", ignore=1, wait=OTHER_WORD)
print(f"{OTHER_WORD!r} in place of {WAIT!r}: {runs[-1]['accuracy']:.1%} right\n\n{other[0].thinking}")

# %%
asked = [question for question in held_out["question"] for _ in range(VOTES)]
sampled = think(asked, temperature=1.0)
ballots = [[reasoning.final_answer(a.answer) for a in sampled[i : i + VOTES]] for i in range(0, len(asked), VOTES)]
each = sum(a.thinking_tokens for a in sampled) / len(sampled)
targets = [reasoning.final_answer(target) for target in held_out["target"]]
for voters in range(1, VOTES + 1, 2):
    winners = [max(b[:voters], key=b[:voters].count) for b in ballots]
    add_run("majority vote", f"{voters} votes", voters * each, [w == t for w, t in zip(winners, targets)])
pd.DataFrame(runs)[["kind", "run", "tokens", "accuracy", "error"]].tail(1 + (VOTES + 1) // 2).round(3)

# %%
report.budget_plot(runs)

# %% [markdown] lang="en"
# Read thoughts, not only figures. Here are questions that were wrong without "Wait" and right with it:

# %% [markdown] lang="zh"
# 别只看数字，也读读思考过程。下面是不加「Wait」答错、加了就答对的题：

# %%
table = [
    {
        "question": row["question"],
        "as it likes": f"{a.thinking}\n→ {a.answer}",
        f"{WAITS[0]} × {WAIT}": f"{b.thinking}\n→ {b.answer}",
    }
    for row, a, b in zip(held_out, natural, extended[0])
    if reasoning.same_answer(b.answer, row["target"]) and not reasoning.same_answer(a.answer, row["target"])
]
print(f"{len(table)} of {len(held_out)} became right")
report.side_by_side(table[:3])

# %% [markdown] lang="en"
# ### Was the choice of rows worth it?
#
# With `COMPARE_WITH_RANDOM` the adapter starts again and learns from as many usable rows, drawn at random.

# %% [markdown] lang="zh"
# ### 挑数据值不值？
#
# 打开 `COMPARE_WITH_RANDOM`，适配器从头再来，用同样多、随机抽的可用数据训练一遍。

# %%
if COMPARE_WITH_RANDOM:
    fitting = [row for row in usable if len(tokenizer.encode(to_text(row))) <= MAX_SEQ_LENGTH]
    trained, ours = {name: weight.clone() for name, weight in get_peft_model_state_dict(model).items()}, adapter
    trainer_for(random.Random(SEED).sample(fitting, len(selected))).train()
    adapter = adapter_for_vllm("adapter_random")
    measure("random rows", f"random, {WAITS[0]} suppressed", ignore=WAITS[0])
    set_peft_model_state_dict(model, trained)  # what follows, and what is run again, is about the chosen rows
    adapter = ours
pd.DataFrame(runs).set_index("run")[["tokens", "accuracy", "error"]].round(3)

# %% [markdown] lang="en"
# ## 9 · Save
#
# The adapter is on disk since section 7; lesson 01 reloads one in a fresh process. Budget forcing is no part of it: it lives in the code that generates. The curve is worth keeping, too.

# %% [markdown] lang="zh"
# ## 9 · 保存
#
# 适配器在第 7 节就存好了，怎样在全新进程里加载见第 01 课。预算强制不在适配器里，而在生成的代码里。曲线也值得存一份。

# %%
table = pd.DataFrame(runs)
runtime.write_text(f"{OUTPUT_DIR}/curve.csv", table.to_csv(index=False))
accuracy = table.set_index("run")["accuracy"]
print(
    f"{OUTPUT_DIR}/curve.csv: {len(table)} runs of {len(held_out)} questions, {table['seconds'].sum():.0f} s of thinking"
)

# %%
first, most, tokens = f"{WAITS[0]} suppressed", f"{WAITS[-1]} suppressed", table.set_index("run")["tokens"]
names = {"natural": "as it likes", "wait": first, "most_waits": most, "other_word": "1, other word"}
names |= {"votes": f"{voters} votes", "random_rows": f"random, {first}"}
loss = report.losses(log)
report.summary(
    OUTPUT_DIR,
    loss_start=loss.head(5).mean(),
    loss_end=loss.tail(5).mean(),
    rows={name: len(rows) for name, rows in stages.items()},
    accuracy_before=accuracy_before,
    **{f"accuracy_{name}": accuracy.get(run) for name, run in names.items()},
    **{f"tokens_{name}": tokens.get(run) for name, run in names.items()},
    accuracy_cut=[accuracy[f"at most {cap}"] for cap in CAPS],
    control=control,
    scaling=scaling,
    performance=performance,
    question=QUESTION,
    case={name: case.answer for name, case in cases.items()},
    asked=len(held_out),
    seconds=cost.seconds,
    peak_gib=cost.peak_gib,
)

# %% [markdown] lang="en"
# ## 10 · When it goes wrong
#
# | what you see | why | what to do |
# |---|---|---|
# | nothing is ever suppressed | the model does not write the delimiter that you wait for | print a completion; set `BEGIN` and `END` to its own |
# | after "Wait" it repeats itself | it was never trained on second thoughts, or is too small for them | traces with second thoughts in the data; fewer waits |
# | more thinking, lower accuracy | beyond what it was trained on it talks itself out of right answers | read ten such cases; stop at the top of the curve |
# | every thought is cut | `MAX_SEQ_LENGTH` is too small for its thoughts | the column `cut`; raise it, or train on shorter traces |
# | without thinking it does as well as with | it thinks in the answer | a smaller `MAX_ANSWER_TOKENS`; read `answer` |
# | accuracy jumps about between budgets | too few questions | look at `error`; raise `HELD_OUT` |
# | vLLM answers as before training | the request names no adapter | `model.load_lora(folder)`, passed as `lora_request` |
# | vLLM overlooks the delimiter | special tokens are left out of its text | `skip_special_tokens=False`, as `generate_with_budget` sets it |
#
# **Now you:** put a word of your choice in place of "Wait" (`OTHER_WORD`), then add 8 to `WAITS`. Where does the curve turn down, and what do the thoughts look like there?

# %% [markdown] lang="zh"
# ## 10 · 出了问题怎么办
#
# | 现象 | 原因 | 办法 |
# |---|---|---|
# | 一次也没拦到 | 模型写的不是你等的那个结束符 | 打印一条输出，把 `BEGIN`、`END` 改成它自己的 |
# | 加了「Wait」就开始复读 | 训练数据里没有回头再想的样子，或者模型太小 | 换带反思的数据；少加几次 |
# | 想得越多错得越多 | 超出了学过的范围，把对的也想错了 | 读十条这样的例子；在曲线最高处停下 |
# | 每条思考都被掐断 | `MAX_SEQ_LENGTH` 放不下它的思考 | 看 `cut` 那一列；调大它，或者换思考短一些的数据来训 |
# | 不让想，反而和想了一样准 | 它把思考写到答案里去了 | 调小 `MAX_ANSWER_TOKENS`；读一读 `answer` |
# | 各档预算的正确率忽上忽下 | 题太少 | 看 `error`；调大 `HELD_OUT` |
# | vLLM 的回答和训练前一样 | 请求里没写适配器 | `model.load_lora(文件夹)`，作为 `lora_request` 传进去 |
# | vLLM 认不出结束符 | 它的文本里去掉了特殊 token | `skip_special_tokens=False`，`generate_with_budget` 已经这样设了 |
#
# **轮到你了**：把 `OTHER_WORD` 换成你想试的词，再往 `WAITS` 里加一个 8。曲线从哪里开始往下掉？那时候的思考写成了什么样？
