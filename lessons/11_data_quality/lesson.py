# %% [markdown] lang="en"
# Ten times the data costs ten times the training. Does it teach more? Here you look for the rows that are not worth it: near-duplicates, odd lengths, answers to another question. Then three published methods, **IFD**, **MoDS** and **CaR**, each choose a tenth of the rows, and you train on each choice and on a random tenth, with the same steps, and compare on held-out questions, whatever comes out.
#
# **For** those who have done lesson 02, whose data it uses; you need not read Chinese.
# **At the end you have** a report on a data set's faults, its rows scored by three published methods, a comparison that a random choice may win, and the chosen rows as a file for your next training.
#
# The rows are Chinese questions to doctors. An exercise in data, not medical advice.

# %% [markdown] lang="zh"
# 数据多十倍，训练就贵十倍，学到的真有十倍吗？这一课专门找不值得训的行：近似重复、长得反常的、答非所问的。然后请三种发表过的方法 **IFD**、**MoDS**、**CaR** 各挑一成数据，再随机抽一成，步数一样，各训一遍，拿留出的问题比一比。结果是什么样就写什么样。
#
# **适合谁**：学过第 02 课，数据就是那一课的。
# **学完你会得到**：一份数据毛病清单；三种方法给每一行打的分；一场随机抽样也可能赢的比较；挑好的数据存成文件，下次训练直接用。
#
# 数据是中文问诊。这是数据练习，不是医疗建议。

# %% [markdown] lang="en"
# ## 1 · Parameters
#
# `DATASET` is lesson 02's folder; clone it as lesson 02 says. `POLLUTED` spoils a share of the rows on purpose, in four known ways: then, and only then, one can count how many faults a method finds. On the real data it is 0; there you judge by eye and by the held-out loss.
#
# `REWARD_MODEL` is the one that MoDS used. It was trained on English, so on Chinese rows take its scores with care.

# %% [markdown] lang="zh"
# ## 1 · 参数
#
# `DATASET` 就是第 02 课的文件夹，下载办法见那一课。`POLLUTED` 是故意弄坏的比例，四种坏法都记了账：知道哪些是坏的，才数得清一种方法找出了多少。真实数据上它是 0，只能靠眼睛和留出损失来判断。
#
# `REWARD_MODEL` 用的是 MoDS 论文里那个。它是用英文训练的，给中文打的分要打个问号。

# %% tags=["parameters"]
MODEL = "unsloth/Qwen2.5-0.5B-Instruct"  # small: it is trained a dozen times
MODEL_SOURCE = "huggingface"  # or "modelscope"
REWARD_MODEL = "OpenAssistant/reward-model-deberta-v3-large-v2"  # one score for a question and an answer
EMBEDDER = "sentence-transformers/paraphrase-multilingual-MiniLM-L12-v2"  # texts to vectors, mean-pooled
DATASET = "Chinese-medical-dialogue-data/Data_数据"  # a folder with a folder a department
OUTPUT_DIR = "outputs/11_data_quality"
ROWS = 5000  # drawn from the data set; scoring costs time, too
POLLUTED = 0.0  # share of these rows that is spoiled on purpose
SHARE = 0.1  # of the rows, how many each method may choose
MAX_SEQ_LENGTH = 1024
LOAD_IN_4BIT = False
GRADIENT_CHECKPOINTING = True  # recompute instead of remember; False is faster, where memory allows
MAX_STEPS = 100  # the same for every choice
BATCH_SIZE = 8
LEARNING_RATE = 2e-4
SCORE_BATCH = 8  # rows that are scored at once
HELD_OUT = 300  # rows kept away from everything, and never spoiled
ASKED = 100  # rows that MoDS lets the model answer
MAX_NEW_TOKENS = 160
SEED = 3407
VRAM_GB = 10  # stop early on a machine with less
DISK_GB = 8

# %% [markdown] lang="en"
# ## 2 · The machine

# %% [markdown] lang="zh"
# ## 2 · 机器

# %%
from helpers import parameters, runtime

parameters.check(globals(), within={})
runtime.require(
    vram_gb=VRAM_GB,
    disk_gb=DISK_GB,
    folder=OUTPUT_DIR,
    unsloth=True,
    models=[MODEL, EMBEDDER, REWARD_MODEL],
    source=MODEL_SOURCE,
)
print(runtime.describe())

# %%
import unsloth  # first, see lesson 01
import numpy as np
import pandas as pd
import torch
from datasets import Dataset
from trl import SFTConfig, SFTTrainer
from unsloth import FastLanguageModel

from helpers import data, generation, hub, memory, prompts, report, selection

# %% [markdown] lang="en"
# ## 3 · Data
#
# `ROWS` rows, and apart from them the held-out ones. What is held out stays as it is: a ruler must be clean.

# %% [markdown] lang="zh"
# ## 3 · 数据
#
# 抽 `ROWS` 行，另外留出一批。留出的这批原封不动：尺子得是干净的。

# %%
dialogues = data.load_medical_dialogues(DATASET).shuffle(seed=SEED)
data.check_held_out(len(dialogues), HELD_OUT, DATASET)
held_out = dialogues.select(range(HELD_OUT))
pool = dialogues.select(range(HELD_OUT, min(len(dialogues), HELD_OUT + ROWS)))
print(f"{len(pool):,} rows to choose from, {len(held_out)} held out")

# %% [markdown] lang="en"
# A row of the pool that is nearly a held-out row would be an answer seen before the examination. Such rows leave first; the next section shows how they are found.

# %% [markdown] lang="zh"
# 候选里要是有和留出数据几乎一样的行，等于考前泄题。先把这些请出去；怎么找到的，下一节就讲。

# %%
columns = [zip(rows["question"][:], rows["answer"][:]) for rows in (held_out, pool)]
held_out_texts, pool_texts = ([f"{question}\n{answer}" for question, answer in column] for column in columns)
leaks = selection.near_copies(held_out_texts, pool_texts)
pool = pool.select(sorted(set(range(len(pool))) - leaks))
print(f"{len(leaks)} near copies of held-out rows leave the pool; {len(pool):,} rows stay")

# %% [markdown] lang="en"
# Now the faults, a quarter each: the answer of *another* row; an answer *cut off* after a third; an answer that *says nothing* ("go to a hospital"); a *copy* of a sound row with a word put before it. All four are common in scraped data. `faults` remembers which row got which; no method below looks at it.

# %% [markdown] lang="zh"
# 下面做手脚，四种各占四分之一：答案换成**别人的**；答案在三分之一处**截断**；答案换成一句**空话**；把好的一行**抄一遍**，前面加个词。爬来的数据里这四样都常见。哪行是什么毛病记在 `faults` 里，后面的方法谁也不许看。

# %%
questions, answers, faults = selection.plant_faults(pool["question"][:], pool["answer"][:], share=POLLUTED, seed=SEED)
faults = np.array(faults)
for fault in selection.FAULTS:
    for row in np.flatnonzero(faults == fault)[:1]:
        print(f"{fault}: {(faults == fault).sum()} rows, for example\n    {questions[row]}\n    {answers[row]}")
print(f"sound: {(faults == '').sum()} rows")

# %% [markdown] lang="en"
# ## 4 · Cheap checks first: near-duplicates and lengths
#
# Lesson 02's loader has dropped exact repetitions; one changed character escapes it. Cut each text into runs of three characters; two texts are as similar as the share of runs they have in common (Jaccard). Comparing all pairs is quadratic, so **MinHash** keeps 128 numbers a text that agree as often as the texts are similar, and only texts that agree in eight numbers in a row are compared at all.

# %% [markdown] lang="zh"
# ## 4 · 先做便宜的检查：近似重复与长度
#
# 第 02 课的加载函数会删掉一字不差的重复，改动一个字就漏网了。把文本切成连续三个字的小段，两段文本共有的小段占多大比例，就有多像（Jaccard）。两两比较是平方级的，所以用 **MinHash**：每段文本只留 128 个数，文本有多像，这些数就有多大比例相同；连着八个数都一样的，才拿来细比。

# %%
with memory.track() as cost:
    signatures = selection.minhash([f"{q}\n{a}" for q, a in zip(questions, answers)])
    pairs = selection.near_duplicates(signatures, threshold=0.8)
copies = selection.later_copies(pairs)
print(f"{len(pairs)} pairs, {len(copies)} of {len(questions):,} rows would go, in {cost.seconds:.1f} s")
closest = sorted(pairs, key=lambda pair: -pair[2])[:3]
report.side_by_side(
    [{"row": questions[i], "its near copy": questions[j], "similar": f"{s:.2f}"} for i, j, s in closest]
)

# %% [markdown] lang="en"
# Lengths next. An answer far from the usual length, on a logarithmic scale, is suspect: too short to help, or a pasted article. "Far" is measured with the median, which the outliers cannot move.

# %% [markdown] lang="zh"
# 再看长度。取对数以后离常见长度太远的答案都可疑：要么短得没用，要么是整篇粘贴。远不远用中位数来量，异常值拉不动它。

# %%
lengths = np.array([len(answer) for answer in answers])
outliers = selection.length_outliers(lengths)
print(f"{len(outliers)} of {len(lengths):,} answers have an odd length; characters in an answer:")
print(pd.Series(lengths).describe(percentiles=[0.01, 0.5, 0.99]).round(0).astype(int).to_dict())
odd = sorted(outliers, key=lambda row: lengths[row])
report.side_by_side([{"question": questions[row], "answer": answers[row][:200]} for row in (odd[:3] + odd[-2:])])

# %% [markdown] lang="en"
# ## 5 · One way to train, for every choice
#
# The comparison is only fair if nothing but the rows differs: the same base, a fresh adapter from the same seed, the same steps, the same rate. So training becomes a function of the rows. It is lesson 02's, shortened.

# %% [markdown] lang="zh"
# ## 5 · 同一种训练方式
#
# 要比得公平，除了数据什么都不能变：同一个基座、同一个种子的新适配器、同样的步数和学习率。所以把训练写成一个函数，输入就是选中的行。内容和第 02 课一样，只是短一些。

# %%
dtype = runtime.dtype()


def fresh_model():
    """The base model, and its tokenizer."""
    return FastLanguageModel.from_pretrained(
        model_name=hub.resolve_model(MODEL, MODEL_SOURCE),
        max_seq_length=MAX_SEQ_LENGTH,
        dtype=dtype,
        load_in_4bit=LOAD_IN_4BIT,
    )


memory.free("model", "trainer", "experienced", "initial", "encoder", "judge")  # of an earlier run
model, tokenizer = fresh_model()
template = prompts.MEDICAL_ZH + tokenizer.eos_token
print(template.format(question=questions[0], answer=answers[0]))

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
    lr_scheduler_type="linear",
    optim="adamw_8bit",
    weight_decay=0.01,
    bf16=dtype == torch.bfloat16,
    fp16=dtype == torch.float16,
    logging_steps=MAX_STEPS,  # one line a training
    save_strategy="no",
    report_to="none",
    disable_tqdm=True,
    seed=SEED,
)

# %%
from unsloth.chat_templates import train_on_responses_only


def make_trainer(chosen):
    """A trainer over the rows `chosen`, with a fresh adapter on the base model; only answers have labels."""
    model, tokenizer = fresh_model()
    model = FastLanguageModel.get_peft_model(
        model,
        r=16,
        lora_alpha=16,
        target_modules=["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
        use_gradient_checkpointing="unsloth" if GRADIENT_CHECKPOINTING else False,
        random_state=SEED,
    )
    rows = Dataset.from_dict({"question": [questions[i] for i in chosen], "answer": [answers[i] for i in chosen]})
    trainer = SFTTrainer(
        model=model, processing_class=tokenizer, train_dataset=data.add_text(rows, template), args=config
    )
    return train_on_responses_only(
        trainer, instruction_part=prompts.MEDICAL_ZH_QUESTION, response_part=prompts.MEDICAL_ZH_ANSWER
    )


# %%
trainer = make_trainer(range(BATCH_SIZE))
batch = next(iter(trainer.get_train_dataloader()))
report.label_mask(tokenizer, batch["input_ids"][0], batch["labels"][0])


# %% [markdown] lang="en"
# The ruler: the mean loss of the held-out answers, in nats a token. `answer_losses` gives it for each row; the same function will make IFD.

# %% [markdown] lang="zh"
# 尺子：留出答案的平均损失，单位是每 token 多少 nat。`answer_losses` 逐行给出；后面的 IFD 用的也是它。


# %%
def losses(model, questions, answers):
    """The loss of each answer after its question, in the template."""
    FastLanguageModel.for_inference(model)
    asked = [prompts.medical_zh(question) for question in questions]
    ended = [answer + tokenizer.eos_token for answer in answers]
    return selection.answer_losses(model, tokenizer, asked, ended, SCORE_BATCH, MAX_SEQ_LENGTH)


def train_on(chosen):
    """The model after training on the rows `chosen`."""
    trainer = make_trainer(chosen)
    trainer.train()
    return trainer.model


before = np.nanmean(losses(model, held_out["question"][:], held_out["answer"][:]))
print(f"held-out loss before any training: {before:.3f}")

# %% [markdown] lang="en"
# ## 6 · IFD: does the question help?
#
# Cherry LLM (Li et al., 2023) asks the model itself. How hard is the answer *after* the question, compared with the answer *alone*?
#
# ```
# IFD = loss(answer | question) / loss(answer)
# ```
#
# Near 0: the question gives it away, nothing to learn. Just below 1: the question hardly helps yet, much to learn. **Above 1: the question hurts; probably the answer belongs to another.** The first step of the method is a little experience: a short training on rows from every cluster of questions, so that the model knows the layout at all.

# %% [markdown] lang="zh"
# ## 6 · IFD：问题帮上忙了吗？
#
# Cherry LLM（Li 等，2023）让模型自己说：有了问题再写答案，比光写答案容易多少？
#
# ```
# IFD = loss(答案 | 问题) / loss(答案)
# ```
#
# 接近 0：看了问题答案就一目了然，没什么可学。略小于 1：问题还帮不上多少忙，有得学。**大于 1：有了问题反而更难，多半是答非所问。** 方法的第一步是先「热身」：把问题聚类，每类取几条短训一次，模型至少得认得这个版式。

# %%
from transformers import AutoModel, AutoTokenizer

name = hub.resolve_model(EMBEDDER, MODEL_SOURCE)
encoder, encoder_tokenizer = (
    AutoModel.from_pretrained(name).to(model.device).eval(),
    AutoTokenizer.from_pretrained(name),
)
with memory.track() as cost:
    vectors = selection.embed(encoder, encoder_tokenizer, questions)
    clusters = selection.k_means(vectors, k=int(np.sqrt(len(vectors) / 2)), seed=SEED)
print(
    f"{vectors.shape[0]:,} questions, {vectors.shape[1]} numbers each, {clusters.max() + 1} clusters, {cost.seconds:.1f} s"
)
for cluster in range(3):
    print(f"cluster {cluster}:", " | ".join(questions[i][:24] for i in np.flatnonzero(clusters == cluster)[:3]))

# %%
size = int(SHARE * len(questions))
each = -(-size // (clusters.max() + 1))
first = np.concatenate([np.flatnonzero(clusters == c)[:each] for c in range(clusters.max() + 1)])[:size]
experienced = train_on(first)
FastLanguageModel.for_inference(experienced)
with memory.track() as cost:
    asked = [prompts.medical_zh(question) for question in questions]
    after_question = selection.answer_losses(experienced, tokenizer, asked, answers, SCORE_BATCH, MAX_SEQ_LENGTH)
    alone = selection.answer_losses(experienced, tokenizer, [""] * len(answers), answers, SCORE_BATCH, MAX_SEQ_LENGTH)
ifd = after_question / alone
print(f"{len(ifd) / cost.seconds:,.0f} rows a second; {np.mean(ifd > 1):.1%} of the rows above 1")
print(
    f"as a text, without its question: {np.nanmedian(alone):.2f} nats a token; with it: {np.nanmedian(after_question):.2f}"
)

# %%
figure = report.Figure(figsize=(8, 3), layout="constrained")
axes = figure.subplots()
kinds = ["", *selection.FAULTS] if POLLUTED else [""]
axes.hist(
    [np.clip(ifd[faults == kind], 0, 2) for kind in kinds], bins=40, stacked=True, label=[k or "sound" for k in kinds]
)
axes.axvline(1, color="black", linestyle="--", linewidth=1)
axes.set(xlabel="IFD (above 2 shown at 2)", ylabel="rows")
axes.legend(frameon=False)
figure

# %% [markdown] lang="en"
# Read them, always: the highest, the highest below 1, and the lowest.

# %% [markdown] lang="zh"
# 一定要读原文：最高的、1 以下最高的、最低的。

# %%
below = np.where(ifd < 1, ifd, np.nan)
shown = [*selection.top(ifd, 2), *selection.top(below, 2), *selection.top(-ifd, 2)]
report.side_by_side(
    [
        {"IFD": f"{ifd[i]:.2f}", "question": questions[i], "answer": answers[i][:120], "planted": faults[i]}
        for i in shown
    ]
)

# %%
chosen = {"IFD": selection.top(below, size)}
print(f"IFD chooses the {len(chosen['IFD'])} highest below 1")

# %% [markdown] lang="en"
# ## 7 · MoDS: quality, coverage, necessity
#
# MoDS (Du et al., 2023) goes in three steps. **Quality:** a reward model scores each pair; the better half stays. **Coverage:** from these, seeds that lie far apart, by k-center greedy: each next one is farthest from those chosen so far. **Necessity:** train on the seeds, let that model answer other good rows, score its answers; where it answers badly, the row is needed.

# %% [markdown] lang="zh"
# ## 7 · MoDS：质量、覆盖、必要性
#
# MoDS（Du 等，2023）分三步。**质量**：奖励模型给每一对问答打分，留下好的一半。**覆盖**：从中挑彼此离得远的当种子，办法是 k-center 贪心，每次挑离已选最远的那一条。**必要性**：先用种子训一遍，让它回答其余的好问题，再给它的回答打分；答得差的，就是还需要的。

# %%
from transformers import AutoModelForSequenceClassification

name = hub.resolve_model(REWARD_MODEL, MODEL_SOURCE)
judge = AutoModelForSequenceClassification.from_pretrained(name).to(model.device).eval()
judge_tokenizer = AutoTokenizer.from_pretrained(name)
with memory.track() as cost:
    quality = selection.rewards(judge, judge_tokenizer, questions, answers, SCORE_BATCH)
print(f"{len(quality) / cost.seconds:,.0f} rows a second")
shown = [*selection.top(quality, 2), *selection.top(-quality, 4)]
report.side_by_side(
    [
        {"reward": f"{quality[i]:.2f}", "question": questions[i], "answer": answers[i][:120], "planted": faults[i]}
        for i in shown
    ]
)

# %%
good = selection.top(quality, len(quality) // 2)
many = min(ASKED, size) // 2  # of the answered rows, the worse half is needed
seeds = good[selection.k_center_greedy(vectors[good], size - many)]
initial = train_on(seeds)
rest = np.setdiff1d(good, seeds)
asked = np.random.default_rng(SEED).choice(rest, min(ASKED, len(rest)), replace=False)
FastLanguageModel.for_inference(initial)
texts = [prompts.medical_zh(questions[i]) for i in asked]
written = [done.text for done in generation.complete(initial, tokenizer, texts, MAX_NEW_TOKENS)]
own = selection.rewards(judge, judge_tokenizer, [questions[i] for i in asked], written, SCORE_BATCH)
needed = asked[selection.top(-own, many)]
chosen["MoDS"] = np.concatenate([seeds, needed])
print(
    f"{len(seeds)} seeds, {len(needed)} rows that it answers badly; their reward {own.min():.2f} to {np.sort(own)[len(needed) - 1]:.2f}"
)

# %% [markdown] lang="en"
# ## 8 · CaR: rank, but from every cluster
#
# CaR (Ge et al., 2024) also scores the quality of each pair, then takes the best overall *and* the best of every cluster of questions. How many clusters? √(n/2) is a rule of thumb. The second part keeps rare subjects, which a ranking alone would lose. Their scorer was trained on experts' corrections; here the reward model ranks.

# %% [markdown] lang="zh"
# ## 8 · CaR：排名，但每一类都要有
#
# CaR（Ge 等，2024）也给每一对打质量分，然后取两部分：总排名最高的，**加上**每一类问题里最高的；分多少类，按经验取 √(n/2)。有了后一半，冷门话题才不会被排名挤掉。论文的打分模型学的是专家改稿，这里由奖励模型来排。

# %%
chosen["CaR"] = selection.cluster_and_rank(quality, clusters, size=size, overall=size // 4)
print(f"CaR: {len(chosen['CaR'])} rows, from {len(set(clusters[chosen['CaR']]))} of {clusters.max() + 1} clusters")

# %% [markdown] lang="en"
# And rivals without a method. Three random tenths and the longest answers cost nothing. The last one, `checked, random`, uses the scores that are there by now: a random tenth of what is left when every check has thrown out its worst, near copies, odd lengths, IFD above 1 and the lowest third by reward.

# %% [markdown] lang="zh"
# 再请几个不讲方法的对手。三份随机的一成、答案最长的一成，都不花钱；最后一个「筛过再随机」（`checked, random`）用的是前面算好的分数：近似重复、长度异常、IFD 大于 1、奖励最低的三分之一统统去掉，剩下的随机抽。

# %%
rng = np.random.default_rng(SEED)
for number in (1, 2, 3):
    chosen[f"random {number}"] = rng.choice(len(questions), size, replace=False)
chosen["longest"] = selection.top(lengths.astype(float), size)
misaligned, low = np.flatnonzero(ifd > 1), selection.top(-quality, len(quality) // 3)
left = np.setdiff1d(np.arange(len(questions)), np.concatenate([copies, outliers, misaligned, low]))
chosen["checked, random"] = rng.choice(left, min(size, len(left)), replace=False)
kinds = ["", *selection.FAULTS]
pd.DataFrame(
    {name: {kind or "sound": (faults[rows] == kind).sum() for kind in kinds} for name, rows in chosen.items()}
).T

# %% [markdown] lang="en"
# What did each *check* find? Precision: of the rows it throws out, how many have any of the faults. Recall: of each fault, how much it throws out. (Without planted faults, all zeros.) Of a copy and its original the later one is thrown out, so about half of the planted ones stay while their original leaves. No check finds all four, and all but the lengths throw out sound rows, too.

# %% [markdown] lang="zh"
# 每种**检查**找到了什么？精确率：它扔掉的行里，有多少真有毛病，哪种都算；召回率：每种毛病，它扔掉了多少。（没有故意弄坏的行时全是零。）副本和原件，扔的总是排在后面的那一个，所以种下的副本约有一半没扔掉，扔掉的是它的原件。没有哪种检查四样通吃；除了看长度，都会误伤。

# %%
flagged = {"near copies": copies, "odd length": outliers, "IFD above 1": misaligned, "lowest third by reward": low}
recall = {
    name: {fault: selection.found(rows, np.flatnonzero(faults == fault))[1] for fault in selection.FAULTS}
    | {"any fault (precision)": selection.found(rows, np.flatnonzero(faults != ""))[0], "rows": len(rows)}
    for name, rows in flagged.items()
}
pd.DataFrame(recall).T.round(2)

# %% [markdown] lang="en"
# ## 9 · Train on each choice, and compare
#
# The same steps on each; "all" sees the same number of rows in training, drawn from everything. Before you look: which will win?

# %% [markdown] lang="zh"
# ## 9 · 各训一遍，比一比
#
# 步数都一样；「全部」那一组训练时看到的行数也一样，只是从所有数据里抽。先猜猜谁会赢？

# %%
import datasets
import transformers

datasets.disable_progress_bars()  # nine trainings, one line each
transformers.utils.logging.disable_progress_bar()
held, flattered = {}, {}
with memory.track() as cost:
    for name, rows in {**chosen, "all": rng.permutation(len(questions))}.items():
        trained = train_on(rows)
        held[name] = losses(trained, held_out["question"][:], held_out["answer"][:])
        sound = [i for i in rows if not faults[i]][:100]  # as if near copies of these were held out
        flattered[name] = losses(trained, [f"请问，{questions[i]}" for i in sound], [answers[i] for i in sound])
        memory.free("trained")
print(cost)

# %%
random = np.array([np.nanmean(held[f"random {number}"]) for number in (1, 2, 3)])
results = pd.DataFrame(
    {
        "held-out loss": {name: np.nanmean(rows) for name, rows in held.items()},
        "median row": {name: np.nanmedian(rows) for name, rows in held.items()},
        "against random": {name: np.nanmean(rows) - random.mean() for name, rows in held.items()},
        "characters": {name: lengths[rows].sum() for name, rows in chosen.items()} | {"all": lengths.sum()},
    }
).sort_values("held-out loss")
print(f"before training {before:.3f}; random {random.mean():.3f}, from {random.min():.3f} to {random.max():.3f}")
results.round(3)

# %% [markdown] lang="en"
# A difference smaller than that between the three random choices is no difference. And the loss is one ruler among several: it asks how likely the held-out answers are, so it favours whoever chose rows that look like them.
#
# ### A near copy among the held-out rows
#
# Ask each model for rows that it *was* trained on, with one word put before the question. If such copies had slipped into the held-out rows, this is what you would have measured:

# %% [markdown] lang="zh"
# 差别要是比三份随机之间的差别还小，就等于没有差别。损失也只是几把尺子中的一把，它只问一件事：留出的那些答案，模型有多大可能写得出来。所以谁挑的数据和留出数据像，谁就占便宜。
#
# ### 留出数据里混进了近似重复
#
# 拿模型**训练过**的行去考它，问题前面加一个词。要是这样的副本混进了留出数据，你量到的就是右边这个数：

# %%
leak = pd.DataFrame(
    {
        "really held out": {name: np.nanmean(held[name]) for name in chosen},
        "near copies of its training rows": {name: np.nanmean(flattered[name]) for name in chosen},
    }
)
print(f"on average {leak.iloc[:, 0].mean():.3f} and {leak.iloc[:, 1].mean():.3f}")
leak.round(3)

# %% [markdown] lang="en"
# ### Keep the choice
#
# Each choice as JSON lines, every row with its scores: which rows were kept, and why, can be looked up later.

# %% [markdown] lang="zh"
# ### 把选择存下来
#
# 每种选法存成一个 JSONL，分数一并写上：以后随时查得到留了谁、为什么。

# %%
from pathlib import Path

table = pd.DataFrame({"question": questions, "answer": answers, "ifd": ifd, "reward": quality, "cluster": clusters})
for name, rows in chosen.items():
    file = Path(OUTPUT_DIR, f"{name.replace(', ', '_').replace(' ', '_')}.jsonl")
    runtime.write_text(file, table.iloc[rows].to_json(orient="records", lines=True, force_ascii=False))
    print(f"{file.stat().st_size / 1024:8,.1f} KiB  {file.name}")

# %%
paired = {i for pair in pairs for i in pair[:2]}
planted_copies = np.flatnonzero(faults == "copy")
report.summary(
    OUTPUT_DIR,
    rows=len(questions),
    held_out_before=before,
    held_out={name: float(np.nanmean(rows)) for name, rows in held.items()},
    random_mean=random.mean(),
    random_spread=random.max() - random.min(),
    checked=float(np.nanmean(held["checked, random"])),
    copies_recall=selection.found(sorted(paired), planted_copies)[1],
    short_recall=min(recall["odd length"][fault] for fault in ("cut off", "says nothing")),
    ifd_recall=recall["IFD above 1"]["other answer"],
    ifd_precision=selection.found(misaligned, np.flatnonzero(faults == "other answer"))[0],
    reward_recall=min(recall["lowest third by reward"][fault] for fault in ("other answer", "cut off", "says nothing")),
    reward_precision=recall["lowest third by reward"]["any fault (precision)"],
    sound_checked=float((faults[chosen["checked, random"]] == "").mean()),
    sound_random=float(np.mean([(faults[chosen[f"random {n}"]] == "").mean() for n in (1, 2, 3)])),
    really_held_out=leak.iloc[:, 0].mean(),
    near_copies=leak.iloc[:, 1].mean(),
    seconds=cost.seconds,
)

# %% [markdown] lang="en"
# ## 10 · When it goes wrong
#
# | what you see | why | what to do |
# |---|---|---|
# | a chosen tenth beats all rows by far | the held-out rows are near copies of it | MinHash over both, before anything else |
# | IFD above 1 nearly everywhere | the model does not know the template, or the template is another than in training | the short first training; compare the two prompts |
# | IFD chooses short, odd or copied answers | a ratio says nothing about quality; loss(answer) of few tokens is noise | lengths and copies first, then IFD |
# | the reward model likes long, polite answers best | that is what people preferred in its data | look at the rank correlation with length |
# | MinHash finds nothing, or everything | runs too long or too short for the language | 3 characters for Chinese, 5 or whole words for English |
# | the winner changes with the seed | the difference is smaller than the noise | more seeds, more held-out rows, or say that there is none |
#
# **Now you:** set `SHARE` to 0.3 and run again: does any method still differ from random? Then set `POLLUTED` to 0 on the sample. What remains of each method's advantage when nothing is broken?
#
# Which Chinese medical data sets there are to choose from: `lessons/11_data_quality/datasets.en.md`. And where there are none, a model can write its own problems and check them: `closing_the_circle.en.md`, beside it.

# %% [markdown] lang="zh"
# ## 10 · 出了问题怎么办
#
# | 现象 | 原因 | 办法 |
# |---|---|---|
# | 选出的一成远远胜过全部数据 | 留出数据里有它的近似副本 | 动手之前先把两边一起过 MinHash |
# | IFD 几乎全都大于 1 | 模型不认得模板，或者和训练时的模板不一样 | 先热身；逐字比对两边的提示词 |
# | IFD 挑中的尽是太短、古怪或重复的答案 | 比值不管质量；答案只有几个 token 时分母全是噪声 | 先查长度和重复，再算 IFD |
# | 奖励模型就爱又长又客气的答案 | 它的训练数据里人们就偏爱这种 | 算一下它和长度的秩相关 |
# | MinHash 什么都没找到，或者什么都像 | 小段的长度不适合这种语言 | 中文取 3 个字，英文取 5 个字母或整词 |
# | 换个种子，赢家就变了 | 差别比噪声小 | 多跑几个种子，多留一些留出数据，或者老实说没有差别 |
#
# **轮到你了**：把 `SHARE` 改成 0.3 再跑，还有哪种方法和随机不一样？再把样例数据的 `POLLUTED` 设成 0：什么都没坏的时候，各方法的优势还剩多少？
#
# 中文医疗数据集有哪些可选，见 `lessons/11_data_quality/datasets.zh.md`；没有现成的数据怎么办？让模型自己出题、自己查，见旁边的 `closing_the_circle.zh.md`。
