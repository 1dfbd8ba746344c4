# %% [markdown] lang="en"
# SFT teaches a model how to answer. What it *knows*, it has read. If it has read too little of your field, let it read on: plain text, no questions, the loss of pre-training. That is continued pre-training. It has a price, because what is not read any more is forgotten. Here you measure both, and what an admixture of general text does about it.
#
# **For** those who have done lesson 01. The defaults read Chinese; for another language change `DOMAIN`, `GENERAL_CONFIG`, `QUIZ` and `BEGINNINGS`.
# **At the end you have** documents packed into blocks without a token of padding, LoRA together with the embeddings at a smaller learning rate, and one table: three mixtures of domain and general text, what each has learned and what each has forgotten.
#
# The medical texts are an exercise, not advice.
#
# The steps, the same in every lesson: parameters → machine → data → load → before → LoRA → train → after → save.

# %% [markdown] lang="zh"
# SFT 教模型怎么回答；它**懂**什么，取决于读过什么。你这一行的东西它读得太少，就让它接着读：纯文本，没有问答，损失和预训练时一样。这就是继续预训练。它有代价：不再读的，会忘。这一课把学到的和忘掉的都量出来，再看看掺进通用文本能挽回多少。
#
# **适合谁**：学过第 01 课的人。
# **学完你会得到**：打包成块、一个补齐 token 都没有的文档；LoRA 加词嵌入一起训练，词嵌入用更小的学习率；还有一张表：领域与通用文本的三种配比，各学到多少，各忘掉多少。
#
# 里面的医学文本只是练习，不是医疗建议。
#
# 每一课都是同样的步骤：参数 → 机器 → 数据 → 加载 → 训练前 → LoRA → 训练 → 训练后 → 保存。

# %% [markdown] lang="en"
# ## 1 · Parameters
#
# `MODEL` is a **base** model: it continues text and has not been taught to chat. `DOMAIN` are Chinese medical textbooks, `GENERAL` is web text, a slice of C4. Of both only the first rows are downloaded. A mixture is domain : general, counted in tokens; all mixtures read equally many tokens, so a mixture with more general text reads less of the domain.
#
# Why a model of 1.5 B and not 7 B? Section 6 works it out.

# %% [markdown] lang="zh"
# ## 1 · 参数
#
# `MODEL` 是**基座**模型，只会续写，没学过聊天。`DOMAIN` 是中文医学教材，`GENERAL` 是网页文本，C4 的一小段。两个都只下载开头的若干行。配比写成 领域 : 通用，按 token 数算；每种配比读的 token 总数一样，通用掺得多，领域就读得少。
#
# 为什么用 1.5B 而不是 7B？第 6 节有账可算。

# %% tags=["parameters"]
MODEL = "unsloth/Qwen2.5-1.5B"  # a base model, not Instruct
MODEL_SOURCE = "huggingface"  # or "modelscope"
DOMAIN = "hf://datasets/shibing624/medical/pretrain/medical_book_zh.json"  # Hub file, Hub name, or a file here
GENERAL = "allenai/c4"
GENERAL_CONFIG = "zh"  # its part; None for a file
DOMAIN_ROWS = 2000  # how many are read; None for all of a file
GENERAL_ROWS = 3000
QUIZ = "data_samples/medical_quiz_zh.jsonl"  # sentences with four endings; write your own
SHORTEST = 200  # characters; shorter documents are skipped
OUTPUT_DIR = "outputs/08_continued_pretraining"
MIXTURES = ["1:0", "1:1", "1:5"]  # domain to general
KEEP = "1:1"  # the one that is saved
MAX_SEQ_LENGTH = 1024  # tokens a block
LOAD_IN_4BIT = False
GRADIENT_CHECKPOINTING = True  # recompute instead of remember; False is faster, where memory allows
RANK = 64  # of LoRA; more than for SFT, there is more to learn
MAX_STEPS = 60  # for every mixture
BATCH_SIZE = 4  # blocks
GRADIENT_ACCUMULATION = 4
LEARNING_RATE = 1e-4
EMBEDDING_LEARNING_RATE = 1e-5  # a tenth
SCORE_BATCH = 4  # rows that are scored at once
HELD_OUT = 100  # documents of either kind kept away from training
BEGINNINGS = ["糖尿病患者应当", "急性阑尾炎的典型表现是", "周末的早上，他们一家人"]
MAX_NEW_TOKENS = 60
SEED = 3407
VRAM_GB = 12  # stop early on a machine with less
DISK_GB = 12

# %% [markdown] lang="en"
# ## 2 · The machine

# %% [markdown] lang="zh"
# ## 2 · 机器

# %%
from helpers import parameters, runtime

parameters.check(globals())
runtime.require(vram_gb=VRAM_GB, disk_gb=DISK_GB, folder=OUTPUT_DIR, unsloth=True, models=[MODEL], source=MODEL_SOURCE)
print(runtime.describe())

# %%
import unsloth  # first, see lesson 01
import numpy as np
import pandas as pd
import torch
from datasets import Dataset
from unsloth import FastLanguageModel, UnslothTrainer, UnslothTrainingArguments

from helpers import data, export, generation, hub, memory, pretraining, report, selection, vram

# %% [markdown] lang="en"
# ## 3 · Data
#
# Plain documents, one a row, no questions and no answers. What is blank, very short ("page not found") or has been there before is skipped and counted.

# %% [markdown] lang="zh"
# ## 3 · 数据
#
# 纯文档，一行一篇，没有问题，也没有答案。空的、太短的（「页面不存在」之类）、重复的都跳过，跳过多少有数。

# %%
corpora = {
    "domain": data.load_corpus(DOMAIN, limit=DOMAIN_ROWS, shortest=SHORTEST),
    "general": data.load_corpus(GENERAL, GENERAL_CONFIG, GENERAL_ROWS, shortest=SHORTEST),
}
shown = zip(*(corpus["text"][:4] for corpus in corpora.values()))
report.side_by_side([{name: text[:300] for name, text in zip(corpora, pair)} for pair in shown])

# %% [markdown] lang="en"
# Held out: documents of both kinds. Domain text shows what was learned, general text what was forgotten. A document that is nearly a held-out one leaves the training side, or you would measure memory.

# %% [markdown] lang="zh"
# 两种文档都留出一批：领域的量学到多少，通用的量忘掉多少。和留出文档几乎一样的，从训练那边请出去，不然量到的是背书。

# %%
held_out, texts = {}, {}
for name, corpus in corpora.items():
    data.check_held_out(len(corpus), HELD_OUT, DOMAIN if name == "domain" else GENERAL, "documents")
    shuffled = corpus.shuffle(seed=SEED)["text"][:]
    held_out[name], rest = shuffled[:HELD_OUT], shuffled[HELD_OUT:]
    near = selection.near_copies(held_out[name], rest)
    texts[name] = [text for row, text in enumerate(rest) if row not in near]
    print(f"{name}: {len(texts[name]):,} documents to read, {len(near)} near copies of held-out ones dropped")

# %% [markdown] lang="en"
# ## 4 · Load the model, pack the documents

# %% [markdown] lang="zh"
# ## 4 · 加载模型，打包文档

# %%
dtype = runtime.dtype()


def load():
    """The base model and its tokenizer."""
    return FastLanguageModel.from_pretrained(
        model_name=hub.resolve_model(MODEL, MODEL_SOURCE),
        max_seq_length=MAX_SEQ_LENGTH,
        dtype=dtype,
        load_in_4bit=LOAD_IN_4BIT,
    )


memory.free("model", "trainer")  # of an earlier run
model, tokenizer = load()
print(f"{model.num_parameters():,} parameters, EOS is {tokenizer.eos_token!r}, on {model.device}")
print(f"input and output embeddings are one matrix: {model.config.tie_word_embeddings}")

# %% [markdown] lang="en"
# Documents have all lengths. In a batch they are padded to the longest, and padding costs time and teaches nothing:

# %% [markdown] lang="zh"
# 文档有长有短。放进同一批，就得补齐到最长的那篇；补齐的 token 花时间，却什么也不教：

# %%
ids = {name: tokenizer(texts[name], add_special_tokens=False, verbose=False)["input_ids"] for name in texts}
few = ids["domain"][:4]
width = max(map(len, few))
for document in few:
    print(f"{len(document):5} tokens + {width - len(document):5} of padding")
lengths = np.array([min(len(document), MAX_SEQ_LENGTH) for document in ids["domain"]])
whole = lengths[: len(lengths) // BATCH_SIZE * BATCH_SIZE].reshape(-1, BATCH_SIZE)
padding = 1 - whole.sum() / (whole.max(axis=1) * BATCH_SIZE).sum()
print(f"all domain documents in batches of {BATCH_SIZE}: {padding:.0%} of the tokens would be padding")

# %% [markdown] lang="en"
# **Packing**: write the documents one after another, an EOS behind each, and cut the stream into blocks of `MAX_SEQ_LENGTH` tokens. Here the same four by hand. A document may be cut in two; its second half then starts a block without its beginning.

# %% [markdown] lang="zh"
# **打包**：把文档一篇接一篇写成一长串，每篇后面加一个 EOS，再切成一块块，每块 `MAX_SEQ_LENGTH` 个 token。拿刚才那四篇动手做一遍。一篇文档可能被切成两半，后一半就成了没有前文的开场。

# %%
stream = [token for document in few for token in (*document, tokenizer.eos_token_id)]
by_hand = [stream[i : i + MAX_SEQ_LENGTH] for i in range(0, len(stream), MAX_SEQ_LENGTH)]
for block in by_hand:
    meets = [place for place, token in enumerate(block) if token == tokenizer.eos_token_id]
    print(f"block of {len(block):5} tokens, a document ends at {meets}")
whole_blocks = [block for block in by_hand if len(block) == MAX_SEQ_LENGTH]  # the last, short one is dropped
print(whole_blocks == pretraining.pack(few, MAX_SEQ_LENGTH, tokenizer.eos_token_id))

# %%
blocks = {name: pretraining.pack(ids[name], MAX_SEQ_LENGTH, tokenizer.eos_token_id) for name in ids}
table = {}
for name, cut in blocks.items():
    table[name] = {"documents": len(ids[name]), "their tokens": sum(map(len, ids[name])), "blocks": len(cut)}
    table[name] |= {"tokens in blocks": sum(map(len, cut)), "lengths": sorted(set(map(len, cut)))}
pd.DataFrame(table).T

# %% [markdown] lang="en"
# A **mixture** takes blocks of both kinds, `1:5` one of the domain to five general ones. `times read` says how often the whole corpus goes by: up to about four times repeating is nearly as good as new text, then less and less (Muennighoff et al., 2023).

# %% [markdown] lang="zh"
# **配比**就是两种块各取多少，`1:5` 是一块领域配五块通用。`times read` 是整个语料过了几遍：四遍以内，重复读和读新的差不多，再多就越来越不划算（Muennighoff 等，2023）。

# %%
size = MAX_STEPS * BATCH_SIZE * GRADIENT_ACCUMULATION


def mixed(mixture):
    """`size` blocks in this mixture, shuffled: (whether it is of the domain, its tokens)."""
    return pretraining.mix(blocks["domain"], blocks["general"], mixture, size, SEED)


table = {}
for mixture in MIXTURES:
    domain = sum(is_domain for is_domain, _ in mixed(mixture))
    for name, number in (("domain", domain), ("general", size - domain)):
        times = round(number / len(blocks[name]), 2)
        table[mixture, name] = {"tokens": f"{number * MAX_SEQ_LENGTH:,}", "times read": times}
pd.DataFrame(table).T

# %% [markdown] lang="en"
# ## 5 · Before training
#
# The ruler is **perplexity**: exp of the mean loss a token. A perplexity of 20 means that the model might as well guess among 20 tokens. It depends on the tokenizer; **bits per byte** does not, so it can be compared between models.

# %% [markdown] lang="zh"
# ## 5 · 训练之前
#
# 尺子是**困惑度**：每个 token 平均损失的指数。困惑度 20，等于模型每次在 20 个 token 里瞎猜。它跟分词器有关；**每字节比特数**无关，不同的模型也能比。


# %%
def score(model, name):
    """Perplexity and bits per byte of the held-out documents."""
    FastLanguageModel.for_inference(model)
    scored = pretraining.perplexity(model, tokenizer, held_out[name], SCORE_BATCH, MAX_SEQ_LENGTH)
    return {f"{name} perplexity": scored.perplexity, f"{name} bits/byte": scored.bits_per_byte}


score(model, "domain") | score(model, "general")

# %% [markdown] lang="en"
# Does lower perplexity mean knowledge? A second test, a quiz: the beginning of a sentence and four endings, one of them true. Which does the model find likeliest? Chance is 25 %. Fifty such rows from your own field take an hour to write, and tell you more than any loss. (In the trimmed run half of the sentences are worded as in the documents, half as in none of them.)

# %% [markdown] lang="zh"
# 困惑度低了，就是懂了吗？再出一份小测验：一句话的开头，四个结尾，只有一个是对的，模型觉得哪个最可能？瞎蒙是 25 %。照着你自己的领域写五十道，花一个小时，比什么损失都说明问题。（精简运行里，一半题目的措辞和文档一样，另一半是文档里没有的说法。）

# %%
quiz = data.load_quiz(QUIZ)
print(quiz[2]["beginning"], "…")
for ending in quiz[2]["endings"]:
    print("   …", ending)


# %%
def measure(model):
    """All figures of a model."""
    figures = score(model, "domain") | score(model, "general")
    return figures | {"quiz": float(np.mean(pretraining.chosen_endings(model, tokenizer, quiz, SCORE_BATCH) == 0))}


def go_on(model):
    """How the model continues BEGINNINGS."""
    FastLanguageModel.for_inference(model)
    written = generation.complete(model, tokenizer, BEGINNINGS, MAX_NEW_TOKENS, repetition_penalty=1.1)
    return [done.text for done in written]


results, written = {"before": measure(model)}, {"before": go_on(model)}
pd.DataFrame(results).round(3)

# %% [markdown] lang="en"
# ## 6 · LoRA, and the embeddings
#
# LoRA moves the layers in a few directions. But a word that the model has hardly met has a poor vector, at the entrance (`embed_tokens`) and at the exit (`lm_head`), and no layer can quite make up for that. So for a new field or language these two are trained **whole**: as `modules_to_save`, copied and updated in full. That costs memory: 4 bytes a number for the copy, 4 for the gradient, 8 for the optimizer, which keeps 32 bits for an embedding even when it is an 8-bit one (2 for an `lm_head` of its own). In GiB, worked out before anything is downloaded; the last column is for QLoRA with embeddings:

# %% [markdown] lang="zh"
# ## 6 · LoRA 与词嵌入
#
# LoRA 只能把各层往少数几个方向推。可要是一个词模型几乎没见过，它的向量本来就不行，入口（`embed_tokens`）和出口（`lm_head`）都是，光靠中间的层补不回来。所以遇到新领域、新语言，这两个矩阵要**整个**训练：放进 `modules_to_save`，复制一份，全量更新。代价是显存：每个数，副本 4 字节，梯度 4 字节，优化器 8 字节（就算用 8 位优化器，词嵌入的状态也按 32 位存；单独的 `lm_head` 是 2 字节）。什么都不用下载，先把账算出来（GiB；最后一列说的是 QLoRA 加词嵌入）：

# %%
rows = {}
for name in ("Qwen2.5-0.5B", "Qwen2.5-1.5B", "Qwen2.5-3B", "Qwen2.5-7B"):
    shape = vram.read_shape(name)
    lora = vram.estimate_vram(name, "lora", batch=BATCH_SIZE, length=MAX_SEQ_LENGTH, rank=RANK).total
    qlora = vram.estimate_vram(name, "qlora", batch=BATCH_SIZE, length=MAX_SEQ_LENGTH, rank=RANK).total
    # Of two matrices one takes 16 bytes a number and the other, `lm_head`, 10.
    embeddings = (16 if shape.tied else 13) * shape.embeddings / vram.GIB
    rows[name] = {"one matrix": shape.tied, "LoRA": lora, "QLoRA": qlora, "embeddings": embeddings}
    rows[name]["fits a T4"] = qlora + embeddings + vram.CONTEXT_GIB <= vram.GPUS["T4"]
pd.DataFrame(rows).T.infer_objects().round(1)

# %% [markdown] lang="en"
# In the small models both embeddings are one matrix (**tied**), in the 7B they are two. `ensure_weight_tying` keeps one matrix one; without it PEFT makes two copies, which drift apart.
#
# And 32 bits for what learns. A bfloat16 number has two to three significant digits; a step of 10⁻⁵ on a weight of 0.02 is rounded away, every time, and the embeddings would stand still while the log shows a learning rate.

# %% [markdown] lang="zh"
# 小模型的两个词嵌入是同一个矩阵（**共享**，tied），7B 是两个。`ensure_weight_tying` 让一个矩阵始终是一个；不写，PEFT 会复制成两份，越训越不一样。
#
# 还有，要学习的参数得用 32 位。bfloat16 只有两三位有效数字，在 0.02 的权重上走 10⁻⁵ 的一步，每次都被舍入吃掉：日志里学习率好好的，词嵌入却一动不动。


# %%
def with_adapter(model, embeddings):
    """LoRA on the layers; with `embeddings` these are trained whole. What learns is in 32 bits."""
    model = FastLanguageModel.get_peft_model(
        model,
        r=RANK,
        lora_alpha=RANK,
        target_modules=["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
        modules_to_save=["embed_tokens", "lm_head"] if embeddings else None,
        ensure_weight_tying=embeddings and model.config.tie_word_embeddings,
        use_gradient_checkpointing=GRADIENT_CHECKPOINTING,  # "unsloth" would also move the frozen embeddings to disk
        random_state=SEED,
    )
    set_dtype(model, torch.float32)
    return model


def set_dtype(model, number):
    """Turn what learns into another number format; the frozen weights stay as they are."""
    for parameter in filter(lambda p: p.requires_grad, model.parameters()):
        parameter.data = parameter.data.to(number)


# %% [markdown] lang="en"
# ## 7 · Train
#
# Why a smaller rate for the embeddings? LoRA's product *BA* starts at zero and is new; an embedding is the work of trillions of tokens. Where input and output share one matrix, every step also pushes down, a little, each token that your text does not hold, and nothing pushes it up again. Between a half and a tenth is usual.
#
# By the end of pre-training the learning rate had come down to almost nothing; now it is **warmed up again**. That alone makes it forget a little at first.

# %% [markdown] lang="zh"
# ## 7 · 训练
#
# 词嵌入为什么要用更小的学习率？LoRA 的乘积 *BA* 从零开始，是新的；词嵌入是几万亿个 token 磨出来的。输入输出共用一个矩阵时，每一步还会把你的文本里没有的词都往下压一点，却没有什么再把它们抬回来。一般取二分之一到十分之一。
#
# 预训练收尾时，学习率已经降到几乎为零，现在又要**重新升上去**（re-warming）。单这一步，开头就会忘掉一点。


# %%
def configure(embedding_rate):
    return UnslothTrainingArguments(
        output_dir=f"{OUTPUT_DIR}/checkpoints",
        max_length=MAX_SEQ_LENGTH,
        gradient_checkpointing=GRADIENT_CHECKPOINTING,
        per_device_train_batch_size=BATCH_SIZE,
        gradient_accumulation_steps=GRADIENT_ACCUMULATION,
        max_steps=MAX_STEPS,
        learning_rate=LEARNING_RATE,
        embedding_learning_rate=embedding_rate,  # None: the embeddings are not trained here
        warmup_steps=MAX_STEPS // 10,
        lr_scheduler_type="cosine",
        optim="adamw_8bit",
        weight_decay=0.0,
        bf16=dtype == torch.bfloat16,
        fp16=dtype == torch.float16,
        logging_steps=10,
        save_strategy="no",
        report_to="none",
        seed=SEED,
    )


# %%
def make_trainer(mixture, embedding_rate):
    """A trainer with a fresh base model over a mixture; without an `embedding_rate` LoRA alone."""
    model, tokenizer = load()
    return UnslothTrainer(
        model=with_adapter(model, embeddings=embedding_rate is not None),
        processing_class=tokenizer,
        train_dataset=Dataset.from_dict({"input_ids": [block for _, block in mixed(mixture)]}),
        args=configure(embedding_rate),
    )


memory.free("model")
trainer = make_trainer(KEEP, EMBEDDING_LEARNING_RATE)
trainer.model.print_trainable_parameters()

# %% [markdown] lang="en"
# Trust, but look: does the optimizer really have two groups with two rates, and is everything in 32 bits?

# %% [markdown] lang="zh"
# 信归信，还是要看一眼：优化器里是不是真有两组参数、两个学习率，是不是都是 32 位？

# %%
names = {id(parameter): name for name, parameter in trainer.model.named_parameters()}
groups = []
for group in trainer.create_optimizer().param_groups:
    first = group["params"][0]
    groups.append({"learning rate": group["lr"], "tensors": len(group["params"]), "in": str(first.dtype)})
    groups[-1]["parameters"] = sum(parameter.numel() for parameter in group["params"])
    groups[-1]["the first"] = names[id(first)].removeprefix("base_model.model.")
pd.DataFrame(groups)

# %% [markdown] lang="en"
# And one block as the loss will see it. All is green: there is no question to be left out, every token is a lesson. Look for the end tokens, where one document ends and an unrelated one begins.

# %% [markdown] lang="zh"
# 再看损失函数眼里的一个块。全是绿的：没有问题需要排除，每个 token 都要学。找找 EOS 在哪里，那是一篇文档结束、毫不相干的另一篇开始的地方。

# %%
batch = next(iter(trainer.get_train_dataloader()))
report.label_mask(tokenizer, batch["input_ids"][0], batch["labels"][0])

# %% [markdown] lang="en"
# The three mixtures, and a control: LoRA without the embeddings on the mixture `KEEP`. Each starts from the same base, reads the same number of tokens, and is measured at the end.

# %% [markdown] lang="zh"
# 三种配比，外加一个对照：用 `KEEP` 的配比，只训 LoRA，不动词嵌入。每次都从同一个基座出发，读同样多的 token，训完就量。

# %%
runs = {mixture: (mixture, EMBEDDING_LEARNING_RATE) for mixture in MIXTURES}
runs["LoRA alone"] = (KEEP, None)
adapter, logs, costs = f"{OUTPUT_DIR}/adapter", {}, {}
for run, (mixture, embedding_rate) in runs.items():
    memory.free("trainer", "group", "first")  # of the one before
    trainer = make_trainer(mixture, embedding_rate)
    with memory.track() as costs[run]:
        trainer.train()
    set_dtype(trainer.model, dtype)  # as it will be saved and served
    results[run], written[run] = measure(trainer.model), go_on(trainer.model)
    logs[run] = trainer.state.log_history
    if run == KEEP:
        with export.replacing(adapter) as folder:  # whole, or not at all
            trainer.model.save_pretrained(folder)
            tokenizer.save_pretrained(folder)
    print(f"{run}: {costs[run]}")

# %%
report.loss_plot(logs[KEEP])

# %% [markdown] lang="en"
# ## 8 · After training
#
# One table. Go down the first column: what was learned. Then *general perplexity* against `before`: what was forgotten. The loss curve above shows neither, it only knows the text that is being read.

# %% [markdown] lang="zh"
# ## 8 · 训练之后
#
# 都在一张表里。先看领域那几列，学到多少；再拿通用困惑度和 `before` 比，忘掉多少。上面的损失曲线两样都看不出来，它只认得正在读的文本。

# %%
table = pd.DataFrame(results).T
loss = np.log(table["general perplexity"])
table["forgotten, nats/token"] = loss - loss["before"]
table["domain tokens"] = [0] + [sum(d for d, _ in mixed(mixture)) * MAX_SEQ_LENGTH for mixture, _ in runs.values()]
table.round(3)

# %%
figure = report.Figure(figsize=(7, 4), layout="constrained")
axes = figure.subplots()
for run, row in table.iterrows():
    axes.plot(row["general bits/byte"], row["domain bits/byte"], "o", color="black" if run == "before" else "tab:blue")
    axes.annotate(run, (row["general bits/byte"], row["domain bits/byte"]), (6, 4), textcoords="offset points")
axes.axvline(table["general bits/byte"]["before"], color="grey", linestyle=":", linewidth=1)
axes.set(xlabel="general text, bits per byte (right of the line: forgotten)", ylabel="domain text, bits per byte")
axes.margins(x=0.2, y=0.1)
axes.grid(alpha=0.3)
figure

# %% [markdown] lang="en"
# The best place is at the bottom and left of the dotted line. And as text, what each of them writes:

# %% [markdown] lang="zh"
# 越靠下越好，最好还在虚线左边。再读读它们各自写了什么：

# %%
shown = ["before", *MIXTURES]
report.side_by_side(
    [{"beginning": text} | {run: written[run][row] for run in shown} for row, text in enumerate(BEGINNINGS)]
)

# %% [markdown] lang="en"
# ## 9 · Save
#
# The adapter with its embeddings is large: the matrices are in it whole. For what comes next, SFT on top, **merge** it into the weights: one plain model folder, which lesson 01 takes as its `MODEL`. Then check that what lies on the disk is what you measured.

# %% [markdown] lang="zh"
# ## 9 · 保存
#
# 带词嵌入的适配器很大，整个矩阵都在里面。下一步要在它上面做 SFT，所以把它**合并**进权重，成为一个普通的模型文件夹，填进第 01 课的 `MODEL` 就能用。最后核对一遍：硬盘上的，就是你量过的那个吗？

# %%
from pathlib import Path

memory.free("trainer")
model, _ = FastLanguageModel.from_pretrained(adapter, max_seq_length=MAX_SEQ_LENGTH, dtype=dtype, load_in_4bit=False)
merged = f"{OUTPUT_DIR}/merged"
with export.replacing(merged) as folder:
    model.save_pretrained_merged(folder, tokenizer, save_method="merged_16bit")
for folder in (adapter, merged):
    size_mib = sum(file.stat().st_size for file in Path(folder).rglob("*") if file.is_file()) / 1024**2
    print(f"{size_mib:10,.1f} MiB  {folder}")

# %%
memory.free("model")
model, _ = FastLanguageModel.from_pretrained(merged, max_seq_length=MAX_SEQ_LENGTH, dtype=dtype, load_in_4bit=False)
from_disk = score(model, "domain")["domain perplexity"]
merged_error = abs(from_disk / results[KEEP]["domain perplexity"] - 1)
print(
    f"domain perplexity {results[KEEP]['domain perplexity']:.3f}, from the disk {from_disk:.3f}, off by {merged_error:.2%}"
)

# %%
figures = {}
for run, row in results.items():
    label = run.replace(":", "_to_").replace(" ", "_")
    figures |= {f"{key.replace(' ', '_').replace('/', '_per_')}_{label}": value for key, value in row.items()}
report.summary(
    OUTPUT_DIR,
    padding=float(padding),
    tokens=size * MAX_SEQ_LENGTH,
    rates=[group["learning rate"] for group in groups],
    trained_in_32_bits=all(group["in"] == "torch.float32" for group in groups),
    embedding_tensors=groups[-1]["tensors"],
    merged_error=float(merged_error),
    **figures,
    beginning=BEGINNINGS[0],
    text_before=written["before"][0],
    text_after=written[KEEP][0],
    seconds=sum(cost.seconds for cost in costs.values()),
    peak_gib=max(cost.peak_gib for cost in costs.values()),
)

# %% [markdown] lang="en"
# ## 10 · When it goes wrong
#
# | what you see | why | what to do |
# |---|---|---|
# | general perplexity soars | only domain text; rate too high | mix in general text; a third of the rate; fewer steps |
# | domain perplexity hardly falls | the model has read it already, or too few tokens | look at bits per byte before; more text, more steps, a larger `RANK` |
# | training loss far below held-out | the same few documents again and again | `times read` above 4: more documents, or more general text |
# | held-out loss is suspiciously low | copies of held-out documents in the training text | deduplicate first, as in section 3 |
# | it continues, and no longer chats | you trained an Instruct model on plain text | start from the base, do SFT afterwards |
# | out of memory with the embeddings | 10 to 16 bytes a number, 7B: 13 GiB | a smaller model, or LoRA alone |
# | with or without embeddings, the same result | they are in 16 bits and do not move; or your words are all well known | the dtype in the table of groups; if they are known, save the memory |
#
# **Now you:** set `EMBEDDING_LEARNING_RATE` to `LEARNING_RATE` and run again. Is a smaller rate better here? (The reading has the figures, and says why a nano model may not be asked.)

# %% [markdown] lang="zh"
# ## 10 · 出了问题怎么办
#
# | 现象 | 原因 | 办法 |
# |---|---|---|
# | 通用困惑度猛涨 | 全是领域文本；学习率太大 | 掺通用文本；学习率降到三分之一；减少步数 |
# | 领域困惑度几乎不降 | 模型早就读过，或者 token 太少 | 看训练前的每字节比特数；加文本、加步数、加大 `RANK` |
# | 训练损失远低于留出损失 | 那几篇文档翻来覆去地读 | `times read` 超过 4 了：加文档，或多掺通用文本 |
# | 留出损失低得可疑 | 训练文本里有留出文档的副本 | 像第 3 节那样先去重 |
# | 只会续写，不会聊天了 | 拿 Instruct 模型去读纯文本 | 从基座开始，SFT 放到后面 |
# | 加上词嵌入就显存不够 | 每个数 10 到 16 字节，7B 要 13 GiB | 换小模型，或者只训 LoRA |
# | 训不训词嵌入都一样 | 它们是 16 位的，根本没动；或者你的词它本来就很熟 | 看参数组那张表里的 dtype；真是本来就熟，就省下这份显存 |
#
# **轮到你了**：把 `EMBEDDING_LEARNING_RATE` 设成和 `LEARNING_RATE` 一样，再跑一遍。在这里，小一点更好吗？（数字在讲解里，还有为什么这件事不能问纳米模型。）
