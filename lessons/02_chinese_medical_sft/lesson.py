# %% [markdown] lang="en"
# Real data is messy. Here are 792,099 questions to Chinese doctors, in CSV files that Python refuses to open. You will read them without losing or garbling a character, see what is in them, train on a balanced part, and measure on held-out questions whether the answers came closer to a doctor's.
#
# **For** those who have done lesson 01; the data are Chinese, but you need not read Chinese.
# **At the end you have** a report on the data, an adapter trained on six departments, and ROUGE-L and BLEU-4 before and after on the same questions.
#
# **This is an exercise in fine-tuning, not medical advice.** The public answers come from an internet forum and hold mistakes; a model trained on them will make more. Nobody should be treated by it.
#
# The steps, the same in every lesson: parameters → machine → data → load → before → LoRA → train → after → save.

# %% [markdown] lang="zh"
# 真实数据总是脏的。这里有 792,099 条中文问诊记录，装在 Python 直接打不开的 CSV 里。这一课要做的是：一个字不丢、一个字不乱地读进来，看清里面有什么，取各科均衡的一部分来训练，再用留出的问题量一量，回答离医生的说法近了多少。
#
# **适合谁**：学过第 01 课的人。
# **学完你会得到**：一份数据体检报告；一个见过六个科室的适配器；同一批问题训练前后的 ROUGE-L 和 BLEU-4。
#
# **这是微调练习，不是医疗建议。** 公开数据来自网络问诊，回答里本来就有错，拿它训练出来的模型只会错得更多。身体不舒服，请去医院。
#
# 每一课都是同样的步骤：参数 → 机器 → 数据 → 加载 → 训练前 → LoRA → 训练 → 训练后 → 保存。

# %% [markdown] lang="en"
# ## 1 · Parameters
#
# `DATASET` is a folder that holds a folder for each department. The real one is public (MIT licence, about 400 MB); fetch it once, in a cell of your own below the set-up cell, with `!` before it, or in a terminal, in the course's folder:
#
# ```
# git clone --depth 1 https://github.com/Toyhom/Chinese-medical-dialogue-data
# ```
#
# No git? Download the ZIP from the same page and unpack it. In mainland China, clone from a mirror of GitHub, or download it elsewhere and copy it over: all that counts is the folder.

# %% [markdown] lang="zh"
# ## 1 · 参数
#
# `DATASET` 是一个文件夹，里面每个科室一个子文件夹。真实数据是公开的（MIT 许可，约 400 MB），在第一格下面另开一格、命令前加 `!`，或者在终端里先进入课程的文件夹，拉一次就行：
#
# ```
# git clone --depth 1 https://github.com/Toyhom/Chinese-medical-dialogue-data
# ```
#
# 没有 git，就在同一个页面下载 ZIP 解压。国内访问 GitHub 慢，可以用 GitHub 镜像站克隆，或者在别处下好再拷过来，只要文件夹在就行。

# %% tags=["parameters"]
MODEL = "unsloth/Qwen2.5-7B-Instruct-bnb-4bit"  # Hub name, folder, or nano/qwen2-medical
MODEL_SOURCE = "huggingface"  # or "modelscope"
DATASET = "Chinese-medical-dialogue-data/Data_数据"  # a folder with a folder a department
OUTPUT_DIR = "outputs/02_chinese_medical_sft"
MAX_CHARS = 1500  # question and answer together; longer rows are dropped
BALANCED = True  # as many rows of each department as the smallest has
MAX_SEQ_LENGTH = 2048
LOAD_IN_4BIT = True
GRADIENT_CHECKPOINTING = True  # recompute instead of remember; False is faster, where memory allows
MAX_STEPS = 60  # -1: train EPOCHS epochs instead
EPOCHS = 1
BATCH_SIZE = 2
GRADIENT_ACCUMULATION = 4
LEARNING_RATE = 2e-4
RESPONSES_ONLY = True  # the loss ignores the questions
HELD_OUT = 100  # rows kept away from training
ASKED = 40  # of these, how many are answered before and after
QUESTION = "我最近总是感觉头晕，应该怎么办？"
MAX_NEW_TOKENS = 256
SEED = 3407
VRAM_GB = 8  # stop early on a machine with less
DISK_GB = 14

# %% [markdown] lang="en"
# ## 2 · The machine
#
# First whether there is room, then `import unsloth`, before `transformers` and `trl`.

# %% [markdown] lang="zh"
# ## 2 · 机器
#
# 先看显存和硬盘够不够，再 `import unsloth`，一定要放在 `transformers` 和 `trl` 之前。

# %%
from helpers import parameters, runtime

parameters.check(globals())
runtime.require(vram_gb=VRAM_GB, disk_gb=DISK_GB, folder=OUTPUT_DIR, unsloth=True, models=[MODEL], source=MODEL_SOURCE)
print(runtime.describe())

# %%
import unsloth  # first, see lesson 01
import torch
from trl import SFTConfig, SFTTrainer
from unsloth import FastLanguageModel

from helpers import data, export, generation, hub, memory, prompts, report, scores

# %% [markdown] lang="en"
# ## 3 · Data
#
# Open a file as one always does:

# %% [markdown] lang="zh"
# ## 3 · 数据
#
# 先像平常那样打开一个文件：

# %%
import pandas as pd

file = next(iter(data.medical_files(DATASET).values()))[0]  # the first department's first file
try:
    pd.read_csv(file)
except ValueError as error:  # as pandas' own are, too
    print(f"{file.name}: {type(error).__name__}: {error}")

# %% [markdown] lang="en"
# The bytes are not UTF-8. China's older standards grew out of each other: GB2312 (1980, 6,763 characters) ⊂ GBK (1995, 21,003) ⊂ GB18030 (all of Unicode). Each decodes what the smaller ones wrote, never the other way round. So "try gb2312, then gbk" may fail in the middle of a file on one rare name, and `errors="ignore"` drops that name without a word. Look at the same bytes, read in five ways, and beside them a patient's name, read with `errors="ignore"`:

# %% [markdown] lang="zh"
# 这些字节不是 UTF-8。国标编码是一层套一层的：GB2312（1980 年，6,763 个汉字）⊂ GBK（1995 年，21,003 个）⊂ GB18030（覆盖整个 Unicode）。大的能解小的，反过来不行。所以「先试 gb2312 再试 gbk」会在文件中间某个生僻字上突然失败；`errors="ignore"` 更糟，字没了，却一声不吭。同样的字节，五种读法；右边是一个病人的名字，用 `errors="ignore"` 来读：

# %%
raw, name = file.read_bytes()[:96], "王䶮".encode("gb18030")  # 䶮 (yǎn) is a rare name
print(raw[:48], name, "\n")
for encoding in ("utf-8", "latin-1", "gb2312", "gbk", "gb18030"):
    text = raw.decode(encoding, errors="replace").partition("\n")[2]
    print(f"{encoding:8} {text[:36]}    王䶮 → {name.decode(encoding, errors='ignore')}")

# %% [markdown] lang="en"
# `read_medical_csv` settles the encoding over the *whole* file, strictly: BOM, else UTF-8, else GB18030. A byte that fits none is an error with its place, not a � in your training data.

# %% [markdown] lang="zh"
# `read_medical_csv` 用严格解码把**整个文件**走一遍再定编码：先看 BOM（文件开头标明编码的几个字节），再试 UTF-8，最后 GB18030。只要有一个字节解不开，就报错并指出位置，绝不让 � 混进训练数据。

# %%
one = data.read_medical_csv(file)
report.side_by_side(one, 3)

# %% [markdown] lang="en"
# Now all departments. Rows that teach nothing or harm are dropped, and each is counted: no answer, the same question with the same answer again, too long. Repetitions matter twice: they weigh double in training, and one of them in the held-out rows would be an answer already seen.

# %% [markdown] lang="zh"
# 再读全部科室。没用或有害的行会丢掉，但丢了多少、为什么丢，都要数清楚：没有回答、问答完全重复、太长。重复行要特别当心：训练时它占双份；万一有一份落进留出数据，等于提前泄题。

# %%
with memory.track() as reading:
    dialogues = data.load_medical_dialogues(DATASET, max_chars=MAX_CHARS)
print(f"\n{len(dialogues):,} rows in {reading.seconds:.1f} s")

# %% [markdown] lang="en"
# ### Every department alike
#
# Internal medicine has three times the rows of oncology. Drawn as it lies, the model would hear from the large departments most. With `BALANCED`, each gives as many rows as the smallest has.

# %% [markdown] lang="zh"
# ### 各科一样多
#
# 内科的数据是肿瘤科的三倍。照原样抽，模型听到的大多是大科室的话。打开 `BALANCED`，每个科室都只取和最小科室一样多的行。

# %%
chosen = data.balanced(dialogues, "department", seed=SEED) if BALANCED else dialogues
counts = {"before": dialogues, "after": chosen}
pd.DataFrame({name: pd.Series(rows["department"][:]).value_counts() for name, rows in counts.items()})

# %%
train_rows, held_out = data.hold_out(chosen, HELD_OUT, SEED, DATASET)
print(f"{len(train_rows):,} rows to train on, {len(held_out)} held out")
report.side_by_side(train_rows.select_columns(["department", "question", "answer"]), 3)

# %% [markdown] lang="en"
# ### Steps or epochs?
#
# A step sees `BATCH_SIZE × GRADIENT_ACCUMULATION` rows; an epoch is every row once. Work it out before you wait for it:

# %% [markdown] lang="zh"
# ### 按步数还是按轮数？
#
# 一步看 `BATCH_SIZE × GRADIENT_ACCUMULATION` 条；一轮是把每条都看一遍。开跑之前先算清楚：

# %%
PUBLISHED_ROWS = 792_099  # all six departments, before anything is dropped
a_step = BATCH_SIZE * GRADIENT_ACCUMULATION
table = {"all of the public data": PUBLISHED_ROWS, "what you train on": len(train_rows)}
pd.DataFrame(
    {
        name: {
            "rows": f"{size:,}",
            "steps in an epoch": f"{-(-size // a_step):,}",
            "rows that 60 steps see": f"{60 * a_step:,}",
            "share of the data": f"{60 * a_step / size:.2%}",
        }
        for name, size in table.items()
    }
)

# %% [markdown] lang="en"
# 60 steps see 0.06 % of the public data: enough for the tone and the layout of an answer, not for medicine. If a step takes 3 s, an epoch over all of it is three and a half days. Nobody starts there: begin with 60 steps, see that everything is right, then 1,000.
#
# ## 4 · Load the model in 4 bits

# %% [markdown] lang="zh"
# 60 步只看了公开数据的 0.06 %：够学会医生说话的腔调和版式，学不到医术。假如一步 3 秒，全部数据跑一轮就是三天半。没人会一上来就这么跑：先 60 步确认处处正确，再上 1,000 步。
#
# ## 4 · 以 4 比特加载模型

# %%
dtype = runtime.dtype()
memory.free("model", "trainer")  # of an earlier run
model, tokenizer = FastLanguageModel.from_pretrained(
    model_name=hub.resolve_model(MODEL, MODEL_SOURCE),
    max_seq_length=MAX_SEQ_LENGTH,
    dtype=dtype,
    load_in_4bit=LOAD_IN_4BIT,
)
print(f"{model.num_parameters():,} parameters in {model.get_memory_footprint() / 1024**2:,.1f} MiB, on {model.device}")

# %% [markdown] lang="en"
# The template gives the model a role, then the question, then the place for the answer, each under a heading in Chinese. `add_text` fills it in for whole columns at a time; the end is **EOS**.

# %% [markdown] lang="zh"
# 模板交代身份，放进问题，留好回答的位置。`add_text` 一次填一整列，比逐行拼快得多；结尾同样是 **EOS**。

# %%
template = prompts.MEDICAL_ZH + tokenizer.eos_token
train_rows, held_out = data.add_text(train_rows, template), data.add_text(held_out, template)
print(train_rows[0]["text"])

# %% [markdown] lang="en"
# ## 5 · Before training
#
# One question of ours and `ASKED` held-out ones, greedy, so that chance plays no part.

# %% [markdown] lang="zh"
# ## 5 · 训练之前
#
# 我们自己的一个问题，加上 `ASKED` 个留出的问题。用贪心解码，免得运气掺进来。

# %%
asked = held_out.select(range(ASKED))
questions, references = [QUESTION, *asked["question"]], asked["answer"][:]


def answer(questions):
    """Greedy answers: each with its text, and whether the model stopped by itself."""
    FastLanguageModel.for_inference(model)
    return generation.complete(model, tokenizer, [prompts.medical_zh(q) for q in questions], MAX_NEW_TOKENS)


before = answer(questions)
print(
    f"{sum(a.stopped for a in before)} of {len(questions)} answers stop by themselves.\n\n{QUESTION}\n{before[0].text}"
)

# %% [markdown] lang="en"
# Two scores compare an answer with the doctor's, character by character: **ROUGE-L** is the longest common subsequence, **BLEU-4** counts runs of up to four characters. Both see wording, not truth: "take aspirin" and "never take aspirin" score almost alike. A third figure asks for one fact: how many answers name the clinic (`section`) that the question was filed under.

# %% [markdown] lang="zh"
# 两个分数都是逐字和医生的回答比：**ROUGE-L** 看最长公共子序列，**BLEU-4** 数连续一到四个字对上多少。它们只认字面，不认对错：「可以吃阿司匹林」和「不可以吃阿司匹林」，得分几乎一样。第三个数只问一件事：有多少回答说出了这个问题所属的门诊（`section`）。


# %%
def score(answers):
    """Over the held-out questions; the first one, ours, has no reference."""
    texts = [a.text for a in answers[1:]]
    return {
        "rouge_l": scores.rouge_l(texts, references),
        "bleu_4": scores.bleu_4(texts, references),
        "clinic_named": sum(clinic in text for clinic, text in zip(asked["section"], texts)),
    }


scores_before = score(before)
print({name: round(value, 1) for name, value in scores_before.items()})

# %% [markdown] lang="en"
# ## 6 · LoRA

# %% [markdown] lang="zh"
# ## 6 · LoRA

# %%
model = FastLanguageModel.get_peft_model(
    model,
    r=16,
    lora_alpha=16,
    lora_dropout=0,
    bias="none",
    target_modules=["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
    use_gradient_checkpointing="unsloth" if GRADIENT_CHECKPOINTING else False,
    random_state=SEED,
)
model.print_trainable_parameters()

# %% [markdown] lang="en"
# ## 7 · Train
#
# As in lesson 01, with one change: `RESPONSES_ONLY`. Patients' questions are full of typing errors and repetition; the model is to answer them, not to learn to write them. Their labels become −100.

# %% [markdown] lang="zh"
# ## 7 · 训练
#
# 和第 01 课一样，只改一处：`RESPONSES_ONLY`。病人的提问错字多、啰嗦，模型要学的是回答，不是学着这样提问，所以问题部分的标签全是 −100。

# %%
config = SFTConfig(
    output_dir=f"{OUTPUT_DIR}/checkpoints",
    dataset_text_field="text",
    max_length=MAX_SEQ_LENGTH,
    gradient_checkpointing=GRADIENT_CHECKPOINTING,
    per_device_train_batch_size=BATCH_SIZE,
    per_device_eval_batch_size=BATCH_SIZE,
    gradient_accumulation_steps=GRADIENT_ACCUMULATION,
    max_steps=MAX_STEPS,
    num_train_epochs=EPOCHS,
    warmup_steps=5,
    learning_rate=LEARNING_RATE,
    lr_scheduler_type="linear",
    optim="adamw_8bit",
    weight_decay=0.01,
    bf16=dtype == torch.bfloat16,
    fp16=dtype == torch.float16,
    logging_steps=1,
    save_strategy="no",
    report_to="none",
    seed=SEED,
)

# %% [markdown] lang="en"
# The trainer tokenizes every row it is given before the first step, and 450,000 rows take minutes. When the steps decide, it gets just the rows that they will see.

# %% [markdown] lang="zh"
# 训练器会先把拿到的每一行都切成 token 才开始第一步，45 万行要好几分钟。既然由步数决定，就只把这些步会用到的行交给它。

# %%
needed = len(train_rows) if MAX_STEPS < 0 else min(len(train_rows), MAX_STEPS * a_step)
trainer = SFTTrainer(
    model=model,
    processing_class=tokenizer,
    train_dataset=train_rows.select(range(needed)),
    eval_dataset=held_out,
    args=config,
)
print(f"{needed:,} of {len(train_rows):,} rows tokenized")

# %%
from unsloth.chat_templates import train_on_responses_only

if RESPONSES_ONLY:
    trainer = train_on_responses_only(
        trainer, instruction_part=prompts.MEDICAL_ZH_QUESTION, response_part=prompts.MEDICAL_ZH_ANSWER
    )
batch = next(iter(trainer.get_train_dataloader()))
report.label_mask(tokenizer, batch["input_ids"][0], batch["labels"][0])

# %%
held_out_before = trainer.evaluate()["eval_loss"]
print(f"held-out loss before training: {held_out_before:.3f}")

# %%
with memory.track() as cost:
    trainer.train()
print(cost)

# %%
log = trainer.state.log_history
report.loss_plot(log)

# %% [markdown] lang="en"
# ## 8 · After training
#
# The same questions again.

# %% [markdown] lang="zh"
# ## 8 · 训练之后
#
# 原题再问一遍。

# %%
held_out_after = trainer.evaluate()["eval_loss"]
after = answer(questions)
scores_after = score(after)
figures = {
    "held_out_loss": (held_out_before, held_out_after),
    "stopped": (sum(a.stopped for a in before), sum(a.stopped for a in after)),
    **{name: (scores_before[name], scores_after[name]) for name in scores_before},
}
pd.DataFrame(figures, index=["before", "after"]).T.round(2)

# %%
table = [
    {"question": question, "before": b.text, "after": a.text, "reference": reference}
    for question, b, a, reference in zip(questions, before, after, ["", *references])
]
report.side_by_side(table[:6])

# %% [markdown] lang="en"
# Read them, do not only count. Does an answer speak of *this* question's symptom? Would a doctor sign it? A score cannot tell you, and that is why nothing here may be used on a patient.
#
# ## 9 · Save
#
# Lesson 01 loads such a folder in a fresh process; the same lines do it here. The tokenizer takes the template along as its *chat template*: whoever loads the folder, lesson 10's server too, then asks in the words that were trained.

# %% [markdown] lang="zh"
# 光看分数不够，要一条条读：回答说的是不是**这个**问题里的症状？医生肯不肯在上面签字？分数答不了这个问题，所以这里的东西一律不能用在病人身上。
#
# ## 9 · 保存
#
# 怎样在全新进程里加载它，第 01 课写过，原样照搬就行。模板也存进分词器，作为它的**聊天模板**：以后不管谁加载这个文件夹（比如第 10 课的服务），问法都和训练时一样。

# %%
from pathlib import Path

tokenizer.chat_template = prompts.as_chat_template(prompts.medical_zh("{question}"), tokenizer.bos_token)
adapter = Path(OUTPUT_DIR, "adapter").resolve()
with export.replacing(adapter) as folder:  # whole, or not at all
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
for saved in sorted(adapter.iterdir()):
    print(f"{saved.stat().st_size / 1024:10,.1f} KiB  {saved.name}")

# %%
loss = report.losses(log)
report.summary(
    OUTPUT_DIR,
    rows=len(dialogues),
    loss_start=loss.head(5).mean(),
    loss_end=loss.tail(5).mean(),
    **{f"{name}_before": pair[0] for name, pair in figures.items()},
    **{f"{name}_after": pair[1] for name, pair in figures.items()},
    question=QUESTION,
    answer_before=before[0].text,
    answer_after=after[0].text,
    reading_seconds=reading.seconds,
    seconds=cost.seconds,
    peak_gib=cost.peak_gib,
)

# %% [markdown] lang="en"
# ## 10 · When it goes wrong
#
# | what you see | why | what to do |
# |---|---|---|
# | `UnicodeDecodeError` in the middle of a file | the encoding was guessed from its first lines | decode all of it strictly: `read_medical_csv` |
# | answers full of �, or of the same three odd characters again and again | the data was decoded with `errors="replace"`, then saved | the characters are gone; fetch the files again |
# | `DataError`: `wrong number of fields, or a quotation mark that is never closed` | more than 5 % of a file's rows cannot be read | mend the row that it names: a text with commas or quotation marks stands in `"…"` |
# | held-out scores are too good to be true | the same rows in training and held-out data | remove repetitions before you split |
# | ROUGE-L rises, answers are useless | every answer has the same opening and closing phrase | read them; score without the phrases |
# | after training it answers any question as a doctor | it has seen nothing else | mix in general instructions (lesson 11) |
#
# **Now you:** set `BALANCED = False` and run again: compare the counts of section 3, and those of the questions asked (`pd.Series(asked["department"][:]).value_counts()`). Why may the scores of the two runs not be compared? Then set `RESPONSES_ONLY = False`: what happens to the held-out loss, and why can you not compare it with the one before?

# %% [markdown] lang="zh"
# ## 10 · 出了问题怎么办
#
# | 现象 | 原因 | 办法 |
# |---|---|---|
# | 读到文件中间才报 `UnicodeDecodeError` | 编码是看开头几行猜的 | 整个文件严格解码：`read_medical_csv` |
# | 回答里有 � 或「锟斤拷」 | 数据曾用 `errors="replace"` 解码后又存了一遍 | 字已经丢了，重新下载原文件 |
# | 报 `DataError`：`wrong number of fields, or a quotation mark that is never closed` | 文件里超过 5 % 的行读不成行 | 去改它指出的那一行：带逗号或引号的文字要放进 `"…"` |
# | 留出数据的分数好得离谱 | 同一条既在训练集又在留出集 | 先去重，再切分 |
# | ROUGE-L 涨了，回答却没用 | 每条回答的开头结尾都是同一句客套话 | 逐条读；去掉套话再算分 |
# | 训练后问什么都像在看病 | 它只见过看病 | 掺一些通用指令数据（第 11 课） |
#
# **轮到你了**：把 `BALANCED` 设成 `False` 再跑一遍：比一比第 3 节各科的行数，再数数提问里各科占几道（`pd.Series(asked["department"][:]).value_counts()`）。为什么两次的分数不能比？再把 `RESPONSES_ONLY` 设成 `False`：留出损失变成多少？为什么不能拿它和原来的比？
