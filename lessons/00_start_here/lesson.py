# %% [markdown] lang="en"
# Before you train anything, three questions: will this machine do, will the model fit, and is fine-tuning the right tool at all? Here you answer all three by measuring, in one sitting.
#
# **For** everybody; nothing is assumed but a little Python.
# **At the end you have** a verdict on this machine line by line, an estimate of GPU memory that you have seen agree with measured peaks, a way to look for data, and one question asked six ways: with a bare prompt, with examples, with retrieved notes, after fine-tuning, and combined.
#
# This lesson bends the usual steps a little: parameters → machine → memory → lessons → data → the task → prompting and retrieval → fine-tuning → comparison.

# %% [markdown] lang="zh"
# 动手训练之前，先弄清三件事：这台机器行不行？模型放不放得下？到底该不该微调？这一课一口气用实测来回答。
#
# **适合谁**：所有人，会一点 Python 就行。
# **学完你会得到**：这台机器逐项的体检结论；一套显存估算，和实测峰值对过账；一套找数据集的办法；以及同一个问题的六种问法：光提问、带例子、带检索到的资料、微调之后，还有它们的组合，孰优孰劣一目了然。
#
# 这一课的步骤和后面略有不同：参数 → 机器 → 显存 → 各课需求 → 数据 → 任务 → 提示词与检索 → 微调 → 对比。

# %% [markdown] lang="en"
# ## 1 · Parameters
#
# The town in the notes is invented, so no model can have read about it. `ANSWER_FORM` is how the town's desk wants every answer to look; the facts go where `{}` stands.

# %% [markdown] lang="zh"
# ## 1 · 参数
#
# 资料里的小镇是虚构的，什么模型都不可能读过。`ANSWER_FORM` 是前台规定的答话格式，`{}` 处填答案。想用中文的小镇，把 `LANGUAGE` 改成 `"zh"`，`NOTES`、`QUESTIONS` 换成 `_zh` 的文件，再写一个中文的 `ANSWER_FORM`。

# %% tags=["parameters"]
MODEL = "unsloth/Qwen2.5-1.5B-Instruct-bnb-4bit"  # Hub name, folder, or nano/qwen2-town
MODEL_SOURCE = "huggingface"  # or "modelscope"
LANGUAGE = "en"  # or "zh", with the other notes, questions and form
NOTES = "data_samples/town_notes_en.json"
QUESTIONS = "data_samples/town_questions_en.json"
ANSWER_FORM = "Town desk: {}. See you there!"
DATASET = "yahma/alpaca-cleaned"  # a data set to look at
SEARCH = "alpaca"  # what to look for on the Hub
PLAN = "Qwen2.5-7B"  # the model whose memory is worked out
OUTPUT_DIR = "outputs/00_start_here"
LOAD_IN_4BIT = True
GRADIENT_CHECKPOINTING = True  # recompute instead of remember; False is faster, where memory allows
MAX_SEQ_LENGTH = 512
EXAMPLES = 3  # in a prompt with examples
TOP_K = 1  # notes retrieved for a question
HELD_OUT = 15  # places whose questions are kept away from training
MAX_STEPS = 120
BATCH_SIZE = 8
LEARNING_RATE = 2e-4
MAX_NEW_TOKENS = 48
SEED = 3407
VRAM_GB = 4  # stop early on a machine with less
DISK_GB = 6

# %% [markdown] lang="en"
# ## 2 · The machine
#
# Each line has a verdict: **ok**; **note**, it works with a limit; **bad**, mend it first. Two lines are measured on the spot: how fast the disk writes and how fast the processor multiplies matrices, which is what training consists of. Of secrets only *whether* they are set is asked.

# %% [markdown] lang="zh"
# ## 2 · 机器
#
# 每一行都有结论：**ok** 没问题；**note** 能用，但有限制；**bad** 得先修。其中两行是当场测的：磁盘写得多快，矩阵乘得多快（训练干的就是这个）。密钥只看**有没有**，不看内容。

# %%
from helpers import checkup, parameters, report, runtime

parameters.check(globals())
findings = list(checkup.examine(runtime.language()))
report.side_by_side(checkup.as_rows(findings, runtime.language()))

# %%
runtime.require(vram_gb=VRAM_GB, disk_gb=DISK_GB, folder=OUTPUT_DIR, unsloth=True, models=[MODEL], source=MODEL_SOURCE)
print(runtime.describe())

# %% [markdown] lang="en"
# ## 3 · Will it fit?
#
# GPU memory can be worked out before anything is downloaded, because it is numbers times bytes a number. **Inference** needs the weights, and keys and values of all tokens so far (the KV cache). **Training** adds a gradient and Adam's two moments for each *trained* number, and whatever the backward pass needs of the forward pass (activations).
#
# **LoRA** trains few numbers, **QLoRA** also stores the frozen ones in 4 bits. In GiB, 2 rows of 2,048 tokens:

# %% [markdown] lang="zh"
# ## 3 · 放得下吗？
#
# 显存用不着下载了再试，算得出来：有多少个数，每个数占几个字节。**推理**要放权重，还有到目前为止所有 token 的键和值（KV 缓存）。**训练**再加上：每个**要训练的**数的梯度、Adam 的两个动量，以及反向传播要用到的前向中间结果（激活值）。
#
# **LoRA** 只训练很少的数；**QLoRA** 更进一步，把冻结的权重存成 4 比特。下面的单位是 GiB，每批 2 行，每行 2,048 个 token：

# %%
import pandas as pd

from helpers import vram

METHODS = {
    "inference": {"method": "inference"},
    "QLoRA": {"method": "qlora"},
    "LoRA": {"method": "lora"},
    "full, 16-bit": {"method": "full", "optimizer": "adamw"},
    "full, mixed": {"method": "full", "optimizer": "adamw", "bits": 32},
}
parts = pd.DataFrame({name: vars(vram.estimate_vram(PLAN, **how)) for name, how in METHODS.items()})
parts.round(2)

# %% [markdown] lang="en"
# Read the columns downwards. `total` is the peak, not the sum: gradients arrive as activations leave. A rule of thumb stands in the last two lines that the next cell prints: training all of a model in 16 bits takes 4 to 5 times as much as running it; with 32-bit weights and moments (mixed precision, 16 bytes a parameter and a passing copy), 9 to 10 times.

# %% [markdown] lang="zh"
# 竖着看。`total` 是峰值，不是各项之和：梯度来的时候，激活值正好在走。经验法则就在下一格打印的最后两行：16 位全量微调的显存是推理的 4 到 5 倍；混合精度（权重和动量都是 32 位，每个参数 16 字节，更新时还要一份临时副本）则是 9 到 10 倍。

# %%
ratio = parts.loc["total"] / parts.loc["total", "inference"]
full_over_inference = float(ratio["full, 16-bit"])
for name, times in ratio.items():
    print(f"{name:13} {times:4.1f} × inference")

# %% [markdown] lang="en"
# ### Which card for which model?
#
# The smallest card that holds each model, by method, with room for the CUDA context:

# %% [markdown] lang="zh"
# ### 什么模型用什么卡？
#
# 每种做法最小要用哪张卡（已算上 CUDA 上下文占的显存）：


# %%
def smallest_card(model, how):
    """The peak, and the smallest card that holds it."""
    need = vram.estimate_vram(model, **how)
    fitting = [card for card, size in vram.GPUS.items() if need.fits(size)]
    return f"{need.total:.0f} GiB: {fitting[0] if fitting else '—'}"


pd.DataFrame({name: {model: smallest_card(model, how) for model in vram.SHAPES} for name, how in METHODS.items()})

# %% [markdown] lang="en"
# ### Is that true?
#
# The same formula against peaks measured on one H200: Unsloth and plain transformers, 0.5B to 14B, 4, 16 and 32 bits, with and without checkpointing. The measuring script is `tools/bench/vram.py`. The dotted lines are 15 % off.

# %% [markdown] lang="zh"
# ### 算得准吗？
#
# 同一套公式，和一块 H200 上实测的峰值对一对：有 Unsloth，也有原生 transformers；0.5B 到 14B；4、16、32 位；开和不开梯度检查点。测量脚本是 `tools/bench/vram.py`。虚线是 15% 的误差线。

# %%
measured = pd.DataFrame(vram.measured("benchmarks/records/vram_h200.json"))
largest_estimate_error = float(measured["error"].abs().max())
print(f"{len(measured)} peaks; largest error {largest_estimate_error:.1%}, mean {measured['error'].abs().mean():.1%}")
report.agreement_plot(measured["peak_gib"], measured["estimate_gib"], "peak measured, GiB", "estimated, GiB", 0.15)

# %%
columns = ["model", "method", "engine", "bits", "optimizer", "batch", "length", "checkpointing"]
shown = {"peak_gib": "{:.2f}", "estimate_gib": "{:.2f}", "error": "{:+.1%}"}
measured[[*columns, *shown]].style.format(shown).hide()

# %% [markdown] lang="en"
# ## 4 · What the lessons need
#
# From the lessons' own files, against this machine. "Trimmed" is the same notebook on a model of a million parameters: it runs anywhere, in minutes, and shows the effect.

# %% [markdown] lang="zh"
# ## 4 · 后面各课要什么
#
# 数字来自各课自己的配置文件，和这台机器比对。「精简版」就是同一个笔记本换上百万参数的小模型：在哪儿都能跑，几分钟跑完，效果照样看得见。

# %%
from helpers import catalog

report.side_by_side(catalog.against_this_machine(runtime.language()))

# %% [markdown] lang="en"
# ## 5 · Find a data set
#
# The Hub has hundreds of thousands. Compare licence, language, size and age before the content; an unstated licence is no permission. Without a network, the course's own files are listed.

# %% [markdown] lang="zh"
# ## 5 · 找数据集
#
# Hub 上的数据集有几十万个。先比许可证、语言、规模、更新时间，再看内容；没写许可证，不等于可以随便用。没有网络时，列出的是课程自带的文件。

# %%
from helpers import data, hub

report.side_by_side(hub.find_datasets(SEARCH))

# %% [markdown] lang="en"
# Then look at one, before you train on it: a few rows in full, and how long they are. Divided by 4, the characters of English text are about its tokens. The red tail is one row in a hundred, and it decides how much memory you need.

# %% [markdown] lang="zh"
# 挑中一个，训练之前先看：完整地读几行，再看看长短。英文大约 4 个字符一个 token，中文一个字略少于一个 token。红色的尾巴只占百分之一，显存要多少却由它说了算。

# %%
rows = data.load_alpaca(DATASET)
lengths = [sum(map(len, row.values())) for row in rows]
report.side_by_side(rows, 3)

# %%
long = sorted(lengths)[int(0.99 * len(lengths))]  # all but one row in a hundred are shorter
report.length_plot(lengths, limit=long, what="characters a row")

# %% [markdown] lang="en"
# ## 6 · One question
#
# A town's desk gets questions about its places. It has notes, and it wants every answer in one form. So an answer can be wrong in two ways: the **fact**, and the **form**. Keep the two apart; each way of improving a model mends mostly one of them.
#
# The questions about 15 places are held out: all ways are judged on those.
#
# Trimmed, a nano model stands in that was taught two things beforehand: to read a note, and to imitate a form. These notes and this form are new to it.

# %% [markdown] lang="zh"
# ## 6 · 一个问题
#
# 小镇前台每天有人来问各家店的事。前台手里有资料，而且规定了答话的格式。所以回答有两种错法：**事实**错了，或者**格式**错了。这两样要分开看，因为每种办法主要只治其中一样。
#
# 有 15 家店的问题留出来不参加训练，所有办法都在这些题上打分。
#
# 精简版用的纳米模型事先学过两样本事：读资料、照着格式说话。这里的资料和格式，它都没见过。

# %%
import random

notes = data.load_notes(NOTES)
questions = data.load_questions(QUESTIONS, notes)
places = random.Random(SEED).sample(sorted(notes), len(notes))
data.check_held_out(len(places), HELD_OUT, NOTES, "places")
held_out = [row for row in questions if row["place"] in places[:HELD_OUT]]
train_rows = [row for row in questions if row["place"] not in places[:HELD_OUT]]
story = train_rows[0]
print(f"{len(notes)} notes, {len(train_rows)} questions to train on, {len(held_out)} held out\n")
print(f"{notes[story['place']]['note']}\n{story['question']}\n{ANSWER_FORM.format(story['value'])}")

# %%
import unsloth  # first: it replaces parts of transformers and trl
import torch
from datasets import Dataset
from trl import SFTConfig, SFTTrainer
from unsloth import FastLanguageModel

from helpers import generation, memory, prompts, retrieval, scores

memory.free("model", "trainer")  # of an earlier run
model, tokenizer = FastLanguageModel.from_pretrained(
    model_name=hub.resolve_model(MODEL, MODEL_SOURCE),
    max_seq_length=MAX_SEQ_LENGTH,
    dtype=runtime.dtype(),
    load_in_4bit=LOAD_IN_4BIT,
)
print(f"{model.num_parameters():,} parameters in {model.get_memory_footprint() / 1024**2:,.1f} MiB, on {model.device}")

# %% [markdown] lang="en"
# ## 7 · Prompting and retrieval
#
# **Retrieval** is a search: which note is the question about? BM25 counts shared words, rare ones more. Look at the scores: places that share half a name are the runners-up.

# %% [markdown] lang="zh"
# ## 7 · 提示词与检索
#
# **检索**就是搜索：这个问题问的是哪条资料？BM25 数共同的词，越少见的词分量越重（中文按相邻两字切）。看分数：紧跟在第一名后面的，是名字有一半相同的店。

# %%
index = retrieval.BM25([note["note"] for note in notes.values()])
found = [index.texts[index.top(row["question"])[0][0]] == notes[row["place"]]["note"] for row in held_out]
retrieved_right = sum(found) / len(found)
print(f"the right note comes first for {sum(found)} of {len(found)} questions\n\n{story['question']}")
for number, score in index.top(story["question"], 3):
    print(f"{score:6.2f}  {index.texts[number]}")

# %% [markdown] lang="en"
# **A prompt**, then, is made of up to three parts: examples as earlier turns of the conversation (the most effective piece of prompt engineering there is), notes, and the question.

# %% [markdown] lang="zh"
# **提示词**最多由三部分拼成：例子（写成之前的几轮对话，提示词工程里最管用的一招）、资料、问题。


# %%
def prompt(row, search=None, examples=(), asked="question"):
    """The conversation as one text, ready to be continued."""
    turns = []
    for example in examples:
        turns.append({"role": "user", "content": example["question"]})
        turns.append({"role": "assistant", "content": ANSWER_FORM.format(example["value"])})
    texts = [search.texts[number] for number, _ in search.top(row[asked], TOP_K)] if search else []
    turns.append({"role": "user", "content": prompts.with_notes(row[asked], texts, LANGUAGE)})
    return tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)


examples = random.Random(SEED).sample(train_rows[1:], EXAMPLES)
print(prompt(story, index, examples))


# %%
def ask(rows, value="value", **how):
    """Greedy answers, and how many have the fact and the form right."""
    FastLanguageModel.for_inference(model)
    texts = [prompt(row, **how) for row in rows]
    answers = [a.text for a in generation.complete(model, tokenizer, texts, MAX_NEW_TOKENS)]
    return {
        "answers": answers,
        "facts": sum(scores.mentions(a, row[value]) for a, row in zip(answers, rows)) / len(rows),
        "form": sum(scores.in_form(a, ANSWER_FORM) for a in answers) / len(rows),
        "tokens": sum(len(tokenizer(text)["input_ids"]) for text in texts) / len(rows),
    }


WAYS = {
    "plain": {},
    "examples": {"examples": examples},
    "notes": {"search": index},
    "notes + examples": {"search": index, "examples": examples},
}
results = {way: ask(held_out, **how) for way, how in WAYS.items()}
pd.DataFrame(results).T[["facts", "form", "tokens"]].astype(float).round(2)

# %% [markdown] lang="en"
# Examples mend the form and leave the facts alone; notes mend the facts and leave the form alone; together they mend both, and every single prompt pays for it in tokens. The one question, so far:

# %% [markdown] lang="zh"
# 例子治格式，治不了事实；资料治事实，治不了格式；两样一起，两样都好，只是每次提问都要多付一截 token。那一个问题，目前的回答：

# %%
told = {way: ask([story], **how)["answers"][0] for way, how in WAYS.items()}
report.side_by_side([{"way": way, "answer": text} for way, text in told.items()])

# %% [markdown] lang="en"
# ## 8 · Fine-tuning
#
# Now the weights. Each training question stands there twice, bare and behind its note, and the answer always has the form. What will the model learn from that: the form, or the facts?

# %% [markdown] lang="zh"
# ## 8 · 微调
#
# 轮到动权重了。每道训练题出现两次：一次光有问题，一次带着资料；答案总是规定的格式。模型从中学到的会是格式，还是事实？

# %%
model = FastLanguageModel.get_peft_model(
    model,
    r=16,
    lora_alpha=16,
    target_modules=["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
    use_gradient_checkpointing="unsloth" if GRADIENT_CHECKPOINTING else False,
    random_state=SEED,
)
texts = [
    prompt(row, search) + ANSWER_FORM.format(row["value"]) + tokenizer.eos_token
    for row in train_rows
    for search in (None, index)
]
print(f"{len(texts)} texts. The last:\n\n{texts[-1]}")

# %%
config = SFTConfig(
    output_dir=f"{OUTPUT_DIR}/checkpoints",
    dataset_text_field="text",
    max_length=MAX_SEQ_LENGTH,
    gradient_checkpointing=GRADIENT_CHECKPOINTING,
    per_device_train_batch_size=BATCH_SIZE,
    gradient_accumulation_steps=1,  # on a GPU Unsloth's own default is 2
    max_steps=MAX_STEPS,
    warmup_steps=5,
    learning_rate=LEARNING_RATE,
    optim="adamw_8bit",
    weight_decay=0.0,
    bf16=runtime.dtype() == torch.bfloat16,
    fp16=runtime.dtype() == torch.float16,
    logging_steps=1,
    save_strategy="no",
    report_to="none",
    seed=SEED,
)

# %%
trainer = SFTTrainer(
    model=model,
    processing_class=tokenizer,
    train_dataset=Dataset.from_dict({"text": texts}),
    args=config,
)

# %% [markdown] lang="en"
# Only the answers are to be learned; the rest turns grey.

# %% [markdown] lang="zh"
# 只学回答；其余部分变灰，不计损失。

# %%
from unsloth.chat_templates import train_on_responses_only

trainer = train_on_responses_only(
    trainer, instruction_part="<|im_start|>user\n", response_part="<|im_start|>assistant\n"
)
batch = next(iter(trainer.get_train_dataloader()))
report.label_mask(tokenizer, batch["input_ids"][0], batch["labels"][0])

# %%
with memory.track() as cost:
    trainer.train()
print(cost)
report.loss_plot(trainer.state.log_history)

# %%
WAYS |= {"tuned": {}, "tuned + notes": {"search": index}}
for way in ("tuned", "tuned + notes"):
    results[way] = ask(held_out, **WAYS[way])
    told[way] = ask([story], **WAYS[way])["answers"][0]
pd.DataFrame(results).T[["facts", "form", "tokens"]].astype(float).round(2)

# %% [markdown] lang="en"
# ## 9 · The comparison
#
# Fine-tuning taught the form, for good and for no tokens at all. Asked about places that it was not trained on, the model now invents, in perfect form: nothing looks more trustworthy than a wrong answer in the right layout. And about places it *was* trained on, asked in other words?
#
# Then a year passes, and every fact changes. The notes are written anew, and the index is built from them in milliseconds. Nobody trains again.

# %% [markdown] lang="zh"
# ## 9 · 对比
#
# 微调教会了格式，一劳永逸，一个 token 也不多花。可是问到没训练过的店，它就用完美的格式胡编：格式越对的错答案，越像真的。那训练过的店，换个问法又如何？
#
# 然后过了一年，所有事实都变了。资料重写一遍，索引几毫秒就建好；没有人重新训练。

# %%
trained = random.Random(SEED).sample(train_rows, len(held_out))
by_heart, recalled = (ask(trained, asked=wording)["facts"] for wording in ("question", "reworded"))
new_index = retrieval.BM25([note["note_after"] for note in notes.values()])
after = {
    "tuned: this year's fact": ask(trained, "value_after")["facts"],
    "tuned: still last year's": by_heart,  # the weights do not know that a year has passed
    "tuned + new notes: this year's fact": ask(trained, "value_after", search=new_index)["facts"],
}
print(f"trained places, before the change: {by_heart:.0%} right word for word, {recalled:.0%} in other words")
pd.Series(after, name="share of answers").to_frame().style.format("{:.0%}")

# %% [markdown] lang="en"
# All of it in one table. `form` and `facts` are shares of the held-out questions; `tokens` are paid at every call, `training` once:

# %% [markdown] lang="zh"
# 全部放进一张表。`form`、`facts` 是留出题上的比例；`tokens` 每次提问都要付，`training` 只付一次：

# %%
table = pd.DataFrame(results).T[["facts", "form", "tokens"]].astype(float).round(2)
table["training, s"] = [round(cost.seconds) if "tuned" in way else 0 for way in table.index]
table["when a fact changes"] = [
    "edit the note" if "notes" in way else "train again" if way == "tuned" else "–" for way in table.index
]
table["the one question"] = pd.Series(told)
table

# %% [markdown] lang="en"
# ### Which to take
#
# | what is missing | take | because |
# |---|---|---|
# | you do not know yet | a prompt, and 20 questions with known answers | an hour, and it tells you what is wrong: fact or form |
# | form, and examples of it fit into the prompt | examples | nothing to train; the price is tokens at every call |
# | facts that change, are private, or must be cited | retrieval | edit a note and it is known; the source can be shown |
# | form, manner, a narrow task, at every call and for long | fine-tuning | short prompts, a smaller model, always the same way |
# | both | fine-tune the manner *with notes in the prompt*, retrieve the facts | the last row above |
# | a skill that the model does not have at all | another model, or much more data than you think | lessons 04 and 08 show how far training goes |

# %% [markdown] lang="zh"
# ### 该选哪一种
#
# | 缺的是什么 | 用什么 | 为什么 |
# |---|---|---|
# | 还说不清 | 写提示词，再备 20 道知道答案的题 | 一小时就够，还能看出错的是事实还是格式 |
# | 格式，几个例子放得进提示词 | 带例子 | 不用训练，代价是每次都多付 token |
# | 事实：会变的、内部的、要注明出处的 | 检索 | 改一条资料马上生效，出处也拿得出来 |
# | 格式、口吻、专门的小任务，而且天天用、长期用 | 微调 | 提示词短，模型可以更小，每次都一个样 |
# | 两样都缺 | 微调时**把资料放进提示词**来教做法，事实靠检索 | 就是上表最后一行 |
# | 模型压根没有的本事 | 换模型，或者准备比想象中多得多的数据 | 训练能走多远，看第 04、08 课 |


# %%
def figures(name, way):
    """The three figures of a way under a name of its own."""
    return {f"{name}_{what}": results[way][what] for what in ("facts", "form", "tokens")}


names = {"plain": "plain", "examples": "examples", "notes": "notes", "both": "notes + examples"}
names |= {"tuned": "tuned", "tuned_notes": "tuned + notes"}

# %%
report.summary(
    OUTPUT_DIR,
    verdicts=len(findings),
    rows_measured=len(measured),
    largest_estimate_error=largest_estimate_error,
    full_over_inference=full_over_inference,
    retrieved_right=retrieved_right,
    **{key: value for name, way in names.items() for key, value in figures(name, way).items()},
    by_heart=by_heart,
    recalled=recalled,
    tuned_after_change=after["tuned: this year's fact"],
    tuned_last_year=after["tuned: still last year's"],
    notes_after_change=after["tuned + new notes: this year's fact"],
    question=story["question"],
    answer_plain=told["plain"],
    answer_tuned_notes=told["tuned + notes"],
    seconds=cost.seconds,
)

# %% [markdown] lang="en"
# ## 10 · When it goes wrong
#
# | what you see | why | what to do |
# |---|---|---|
# | the estimate fits, the run does not | another notebook holds memory; or the loss of a large vocabulary in plain transformers | look at "free" in section 2; compare `engine="transformers"` with `"unsloth"` |
# | out of memory after an hour | one long row | estimate with the longest row, not the mean |
# | the right note, the wrong answer | the model did not read it: too many notes, or too small a model | lower `TOP_K`, a larger model, or train it on answering from notes |
# | the wrong note | question and note share no words | look at the scores; embeddings find paraphrases, BM25 names and numbers |
# | perfect form, invented facts | fine-tuned on facts that it did not know | retrieve facts; teach it to say that it does not know |
#
# **Now you:** set `TOP_K = 2` and run again from the parameters. Which rows suffer, which one mends it, and why? (Guess first; the figures are in the reading.) Then write an `ANSWER_FORM` of your own, with a real model.

# %% [markdown] lang="zh"
# ## 10 · 出了问题怎么办
#
# | 现象 | 原因 | 办法 |
# |---|---|---|
# | 估算放得下，一跑就爆 | 别的笔记本占着显存；或者用的是原生 transformers，词表大，损失那一步很费显存 | 看第 2 节的「空闲」；拿 `engine="transformers"` 和 `"unsloth"` 各算一遍 |
# | 跑了一小时才爆显存 | 碰上了一条特别长的样本 | 按最长的一行估，别按平均 |
# | 资料对，答案错 | 模型没读进去：资料太多，或者模型太小 | 调小 `TOP_K`，换大模型，或者专门训练它「按资料回答」 |
# | 资料就找错了 | 问题和资料没有共同的词 | 看分数；换种说法要靠向量检索，名字和数字 BM25 更准 |
# | 格式完美，事实胡编 | 拿模型不知道的事实去微调 | 事实交给检索；教它学会说不知道 |
#
# **轮到你了**：把 `TOP_K` 设成 2，从参数那格重新跑。哪几行变差了？哪一行又救了回来？为什么？（先猜一猜，数字在讲解里。）再用真模型试一个你自己写的 `ANSWER_FORM`。
