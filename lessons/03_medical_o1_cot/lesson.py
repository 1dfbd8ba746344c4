# %% [markdown] lang="en"
# A reasoning model thinks aloud before it answers: `<think> … </think>`, then the answer. DeepSeek-R1's small copies do so at length, and waver. Here you train one on 500 medical questions whose thoughts are one connected text that ends in an answer, and *measure* what changes: the form, the length of the thinking, and whether the answers are right. These are three different things.
#
# **For** those who know lesson 01.
# **At the end you have** an adapter, a table of before and after on held-out questions, a check that catches the commonest fault of such fine-tunes, and the run's curves in a tracking tool.
#
# The data are exercises. Nothing here is medical advice, and a model trained like this must not give any.

# %% [markdown] lang="zh"
# 推理模型会先把思考过程写出来，再给答案：`<think> … </think>`，然后才是正文。DeepSeek-R1 蒸馏出来的小模型就是这样，只是想得又长又绕。这一课拿几百道医学题来训练它，题目的思考过程是一段连贯的文字，想完就落到答案上。训练前后**量三样东西**：格式对不对，想了多长，答案对不对。这三样是三回事。
#
# **适合谁**：学过第 01 课的人。
# **学完你会得到**：一个适配器；一张留出题上的前后对照表；一个检查函数，专抓这类微调最常犯的错；以及存进实验追踪工具里的训练曲线。
#
# 数据只是练习题。这里的一切都不构成医疗建议，这样训练出来的模型也不能拿去看病。

# %% [markdown] lang="en"
# ## 1 · Parameters
#
# `CASE` is the question of the published tutorials; its reference answer is in `CASE_KEYS`: a normal residual volume, and no involuntary contractions. For Chinese set `LANGUAGE = "zh"`: data, template and case follow.

# %% [markdown] lang="zh"
# ## 1 · 参数
#
# `CASE` 是公开教程里用来对比的那道题；它的参考答案写在 `CASE_KEYS` 里：残余尿量正常，没有逼尿肌不自主收缩。想用中文数据，把 `LANGUAGE` 改成 `"zh"`，数据、模板和这道题都会跟着换。

# %% tags=["parameters"]
MODEL = "unsloth/DeepSeek-R1-Distill-Llama-8B"  # Hub name, folder, or nano/llama-r1
MODEL_SOURCE = "huggingface"  # or "modelscope"
DATASET = "FreedomIntelligence/medical-o1-reasoning-SFT"  # or a .json / .jsonl file
LANGUAGE = "en"  # or "zh"
ROWS = {"en": 500, "zh": 5000}  # the first rows, as many as the published runs took
OUTPUT_DIR = "outputs/03_medical_o1_cot"
MAX_SEQ_LENGTH = 2048  # tokens
DROP_TOO_LONG = True  # False: cut them, as the published runs did
LOAD_IN_4BIT = True
GRADIENT_CHECKPOINTING = True  # recompute instead of remember; False is faster, where memory allows
MAX_STEPS = 60
BATCH_SIZE = 2
GRADIENT_ACCUMULATION = 4
LEARNING_RATE = 2e-4
HELD_OUT = 50  # rows kept away from training
ASKED = 8  # of these, how many are answered before and after
MAX_NEW_TOKENS = 1200  # thinking and answer together
TRACKING = "none"  # or "tensorboard", "wandb", "trackio"
UPLOAD = False  # True: wandb sends the run to your account
CASE = {
    "en": "A 61-year-old woman with a long history of involuntary urine loss during activities like coughing or sneezing but no leakage at night undergoes a gynecological exam and Q-tip test. Based on these findings, what would cystometry most likely reveal about her residual volume and detrusor contractions?",
    "zh": "一位61岁的女性，长期在咳嗽或打喷嚏等活动时不自主漏尿，但夜间没有漏尿。她接受了妇科检查和Q-tip试验。根据这些表现，膀胱测压最可能显示她的残余尿量和逼尿肌收缩情况如何？",
}
CASE_KEYS = {
    "en": [
        "normal residual|normal post void|residual volume is normal",
        "no involuntary|any involuntary|absence of involuntary",
    ],
    "zh": ["残余尿量正常|正常的残余尿量|残余尿正常", "没有逼尿肌不自主收缩|无逼尿肌不自主收缩|逼尿肌无不自主收缩"],
}
SEED = 3407
VRAM_GB = 12
DISK_GB = 20

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
import unsloth  # before transformers and trl
import pandas as pd
import sacrebleu
import torch
from trl import SFTConfig, SFTTrainer
from unsloth import FastLanguageModel

from helpers import data, export, generation, hub, memory, prompts, reasoning, report, tracking

# %% [markdown] lang="en"
# ## 3 · Data
#
# A row is a `Question`, a `Complex_CoT` (the chain of thought) and a `Response`.

# %% [markdown] lang="zh"
# ## 3 · 数据
#
# 一行三个字段：题目 `Question`、思维链 `Complex_CoT`、回答 `Response`。

# %%
rows = data.load_medical_o1(DATASET, LANGUAGE, ROWS[LANGUAGE])
report.side_by_side(rows, 2)

# %% [markdown] lang="en"
# **Is the test question in the training data?** Then a good answer proves nothing. So look for the row most like it, and take it out if the two share more than half of their character trigrams. The published case was the *first row* of the English data when those tutorials were written: they test on what they trained on. The data have been rearranged since; the output below says whether it is among your rows.

# %% [markdown] lang="zh"
# **测试题在不在训练数据里？** 在的话，答得好也说明不了什么。所以先找出和它最像的一行：三字组（连着的三个字或字母）的重合超过一半，就当作同一道题拿掉。公开教程写成的时候，那道题正是英文数据的**第一行**：拿训练过的题来测试。数据后来重新整理过，它还在不在你这几行里，看下面打印的结果。

# %%
place, alike = data.nearest(rows["Question"], CASE[LANGUAGE])
print(f"the row most like CASE, {alike:.0%} alike:\n{rows[place]['Question']}")
if alike > 0.5:
    rows = rows.select([number for number in range(len(rows)) if number != place])
    print(f"\ntaken out; {len(rows):,} rows are left")
case_in_training_rows = int(data.nearest(rows["Question"], CASE[LANGUAGE])[1] > 0.5)

# %% [markdown] lang="en"
# ## 4 · Load the model in 4 bits
#
# As in lesson 01; 8 billion parameters become about 6 GB.

# %% [markdown] lang="zh"
# ## 4 · 以 4 比特加载模型
#
# 和第 01 课一样；80 亿参数压到约 6 GB。

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
# The template ends the *prompt* with `<think>`, so that the model goes on thinking. The *training text* is the same prompt, then the thoughts, `</think>`, the answer and EOS.

# %% [markdown] lang="zh"
# 提示词以 `<think>` 结尾，模型接着就会开始想。训练文本的开头和提示词一模一样，后面依次是思考、`</think>`、回答和 EOS。


# %%
def to_text(batch, tag="think"):
    triples = zip(batch["Question"], batch["Complex_CoT"], batch["Response"])
    texts = [prompts.medical_o1(*triple, language=LANGUAGE, tag=tag) for triple in triples]
    return {"text": [text + tokenizer.eos_token for text in texts]}


template = prompts.medical_o1("{Question}", "{Complex_CoT}", "{Response}", language=LANGUAGE)
data.report_marks(rows, template)  # rows that forge a turn, if any
rows = rows.map(to_text, batched=True)
print(rows[0]["text"])

# %% [markdown] lang="en"
# ### The tag trap
#
# A published Chinese tutorial trains with the Chinese word for thinking as its tag and prompts with `<think>`. Nothing fails: the loss falls, and the model is asked in a form that it was not trained on. One line catches it before it costs a training run:

# %% [markdown] lang="zh"
# ### 标签的坑
#
# 有一份公开的中文教程，训练用 `<思考>`，提问却用 `<think>`。程序不会报错，损失照样下降，可提问的形式和训练时根本不是一回事。开训之前加一行检查，就能拦住：

# %%
prompt = prompts.medical_o1(rows[0]["Question"], language=LANGUAGE)
prompts.check_agreement(rows[0]["text"], prompt)
print("training text and prompt agree\n")

with_other_tag = to_text(rows[:1], tag="思考")["text"][0]
try:
    prompts.check_agreement(with_other_tag, prompt)
except prompts.PromptMismatch as error:
    print(error)

# %% [markdown] lang="en"
# ### How long are the rows?
#
# A row longer than `MAX_SEQ_LENGTH` is cut at its end. There stands the answer, and EOS. Such a row teaches the model to think and never to answer. Count first:

# %% [markdown] lang="zh"
# ### 样本有多长？
#
# 超过 `MAX_SEQ_LENGTH` 的样本会从末尾截断，而末尾正是答案和 EOS。这样的样本只教模型一直想、永远不答。先数一数：


# %%
def count_tokens(batch):
    until_answer = [text.partition("</think>")[0] + "</think>" for text in batch["text"]]
    return {
        "tokens": [len(ids) for ids in tokenizer(batch["text"])["input_ids"]],
        "until_answer": [len(ids) for ids in tokenizer(until_answer)["input_ids"]],
    }


rows = rows.map(count_tokens, batched=True)
report.length_plot(rows["tokens"], MAX_SEQ_LENGTH)

# %%
rows_cut = sum(tokens > MAX_SEQ_LENGTH for tokens in rows["tokens"])
rows_without_answer = sum(tokens >= MAX_SEQ_LENGTH for tokens in rows["until_answer"])
print(f"{rows_cut} of {len(rows):,} rows are longer than {MAX_SEQ_LENGTH:,} tokens and would lose their EOS;")
print(f"{rows_without_answer} of them would lose the whole response")
if DROP_TOO_LONG:
    rows = rows.filter(lambda row: row["tokens"] <= MAX_SEQ_LENGTH)
train_rows, held_out = data.hold_out(rows, HELD_OUT, SEED, DATASET)
print(f"{len(train_rows):,} rows to train on, {len(held_out)} held out")

# %% [markdown] lang="en"
# ## 5 · Before training
#
# The case and some held-out questions, greedy. `split_thinking` takes a completion apart and says what is wrong with its form; it knows missing, doubled and mixed tags.

# %% [markdown] lang="zh"
# ## 5 · 训练之前
#
# 先问那道病例题和几道留出题，贪心解码。`split_thinking` 把回答拆成思考和答案，格式不对就说明哪里不对：标签缺失、重复、前后不一，都认得出来。

# %%
questions = [CASE[LANGUAGE], *held_out["Question"][:ASKED]]
references = held_out["Response"][:ASKED]


def ask(questions, tag="think"):
    FastLanguageModel.for_inference(model)
    texts = [prompts.medical_o1(question, language=LANGUAGE, tag=tag) for question in questions]
    return generation.complete(model, tokenizer, texts, MAX_NEW_TOKENS)


before = ask(questions)
print(before[0].text)

# %% [markdown] lang="en"
# Now judge. A reference answer may mark its key in bold (`**…**`); then "agrees" means that these words stand in the answer, after the thinking. "Said anywhere" also counts the thinking: a model may know and not come to the point.

# %% [markdown] lang="zh"
# 接着打分。参考答案如果用粗体（`**…**`）标出了要点，「一致」就是指这几个词出现在思考之后的答案里。「提到过」把思考部分也算上：模型可能知道答案，只是没落到结论上。


# %%
def judge(answers, tag="think"):
    """One line a held-out question: its form, the length of its thinking, and whether it agrees with the reference."""
    lines = []
    for answer, reference in zip(answers[1:], references):
        parts, key = reasoning.split_thinking(answer.text, opened=True, tags=[tag]), reasoning.key_of(reference)
        line = {
            "form": parts.fault or "good",
            "stopped": answer.stopped,
            "thinking_tokens": len(tokenizer(parts.thinking)["input_ids"]),
            "answer": parts.answer,
        }
        if key:
            line["agrees"] = reasoning.agrees(parts.answer, key)
            line["said_anywhere"] = reasoning.agrees(answer.text, key)
        lines.append(line)
    return pd.DataFrame(lines, columns=["form", "stopped", "thinking_tokens", "answer", "agrees", "said_anywhere"])


judged_before = judge(before)
judged_before["form"].value_counts().to_frame("held-out answers")


# %%
def shares(judged):
    """The figures of one table of `judge`: shares from 0 to 1, mean tokens, chrF from 0 to 100."""
    return {
        "format": (judged["form"] == "good").mean(),
        "stopped": judged["stopped"].mean(),
        "thinking_tokens": judged["thinking_tokens"].mean(),
        "agrees": judged["agrees"].dropna().astype(float).mean(),
        "said_anywhere": judged["said_anywhere"].dropna().astype(float).mean(),
        "chrF": sacrebleu.corpus_chrf(judged["answer"].tolist(), [references]).score,
    }


print(f"{judged_before['agrees'].notna().sum()} of {len(references)} references mark a key")
pd.DataFrame({"before": shares(judged_before)}).round(2)

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
# ## 7 · Train, and keep the curves
#
# `TRACKING` chooses who keeps them: TensorBoard (files, a viewer of its own), Weights & Biases (a web service, here offline unless `UPLOAD`; then it takes the secret `WANDB_API_KEY`), Trackio (a local database, a small web page). All write to `OUTPUT_DIR/tracking`. `tracking.start` returns what the trainer must be told:

# %% [markdown] lang="zh"
# ## 7 · 训练，并把曲线留下来
#
# `TRACKING` 决定用哪个工具：TensorBoard（存成文件，自带查看器）；Weights & Biases（网页服务，这里默认离线，`UPLOAD = True` 才上传，密钥从 `WANDB_API_KEY` 取）；Trackio（本地数据库加一个小网页）。文件都在 `OUTPUT_DIR/tracking`。`tracking.start` 返回要告诉训练器的几个设置：

# %%
tracked = tracking.start(TRACKING, OUTPUT_DIR, run_name=f"medical-o1-{LANGUAGE}-{MAX_STEPS}-steps", upload=UPLOAD)
tracked

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
    warmup_steps=5,
    learning_rate=LEARNING_RATE,
    lr_scheduler_type="linear",
    optim="adamw_8bit",
    weight_decay=0.01,
    bf16=dtype == torch.bfloat16,
    fp16=dtype == torch.float16,
    logging_steps=1,
    save_strategy="no",
    seed=SEED,
    **tracked,  # report_to, run_name, …
)

# %%
texts = ["text"]  # the trainer needs no other column
trainer = SFTTrainer(
    model=model,
    processing_class=tokenizer,
    train_dataset=train_rows.select_columns(texts),
    eval_dataset=held_out.select_columns(texts),
    args=config,
)
batch = next(iter(trainer.get_train_dataloader()))
report.label_mask(tokenizer, batch["input_ids"][0][:400], batch["labels"][0][:400])

# %%
held_out_before = trainer.evaluate()["eval_loss"]
with memory.track() as cost:
    trainer.train()
held_out_after = trainer.evaluate()["eval_loss"]
print(f"{cost}\nheld-out loss {held_out_before:.3f} → {held_out_after:.3f}")

# %%
log = trainer.state.log_history
report.loss_plot(log)

# %%
print(tracking.finish(TRACKING, OUTPUT_DIR))

# %% [markdown] lang="en"
# ## 8 · After training
#
# The same questions. And once more with the wrong tag: trained with `<think>`, but prompted with the Chinese tag, and read by a parser that waits for its end.

# %% [markdown] lang="zh"
# ## 8 · 训练之后
#
# 原题再问一遍。然后故意用错标签再问一遍：训练用 `<think>`，提问用 `<思考>`，解析时等着 `</思考>`，看看会怎样。

# %%
after, wrong_tag = ask(questions), ask(questions, tag="思考")
judged_after, judged_wrong_tag = judge(after), judge(wrong_tag, tag="思考")
columns = {"before": judged_before, "after": judged_after, "after, wrong tag": judged_wrong_tag}
figures = {name: shares(judged) for name, judged in columns.items()}
pd.DataFrame(figures).round(2)

# %%
forms = pd.DataFrame({name: judged["form"].value_counts() for name, judged in columns.items()})
forms.fillna(0).astype(int)

# %% [markdown] lang="en"
# Read the figures one by one. With the **wrong tag** the model still closes with the tag that it learned, `</think>`; nobody who waits for the other one gets an answer. The **form** is learned first and fully. **Agreement** can stay behind: the published run of this tutorial came out shorter and tidier, and its conclusion on the case still contradicted the reference. A tidy wrong answer is the more dangerous one, because it reads well.

# %% [markdown] lang="zh"
# 几行要分开看。**标签用错**时，模型照样用学会的 `</think>` 收尾，等着另一个标签的人就永远等不到答案。**格式**学得最快、最彻底；**答案一致**可能跟不上。公开教程那次训练之后，输出更短、更整齐，可那道病例题的结论仍然和参考答案相反。错得整整齐齐反而更危险，因为读起来像是对的。


# %%
def case_keys_found(answer):
    said = reasoning.split_thinking(answer.text, opened=True).answer
    return sum(reasoning.agrees(said, key) for key in CASE_KEYS[LANGUAGE])


case_before, case_after = case_keys_found(before[0]), case_keys_found(after[0])
print(f"of the case's {len(CASE_KEYS[LANGUAGE])} keys the answer has: {case_before} → {case_after}")
report.side_by_side([{"before": before[0].text, "after": after[0].text}])

# %%
table = [
    {"question": question, "before": b.text, "after": a.text, "reference": reference}
    for question, b, a, reference in zip(questions[1:5], before[1:], after[1:], references)
]
report.side_by_side(table)

# %% [markdown] lang="en"
# Now read by eye; no figure replaces it. A key finds words, not meaning. chrF compares letters: a wrong diagnosis in the reference's wording scores high, the right one in other words low. Neither looks at the *thinking*: is the conclusion what the thoughts lead to?

# %% [markdown] lang="zh"
# 接下来要用眼睛读，什么指标都替代不了。要点匹配认的是字，不是意思；chrF 比的是字符：措辞照抄、诊断却错，分数照样高；诊断对、换了说法，分数反而低。两者都不看**思考过程**：结论真是从前面推出来的吗？

# %% [markdown] lang="en"
# ## 9 · Save
#
# Lesson 06 takes this adapter on: merged, as GGUF, in llama.cpp and Ollama. None of them knows `to_text`; they ask by the tokenizer's *chat template*. R1's is another layout than the one trained here, so ours takes its place.

# %% [markdown] lang="zh"
# ## 9 · 保存
#
# 第 06 课接着用这个适配器：合并、转成 GGUF，放进 llama.cpp 和 Ollama。它们都不认识 `to_text`，提问靠分词器自带的**聊天模板**。R1 那个模板和这里训练的版式不是一回事，所以换成我们的。

# %%
from pathlib import Path

asked = prompts.medical_o1("{question}", language=LANGUAGE)
tokenizer.chat_template = prompts.as_chat_template(asked, tokenizer.bos_token, thinking="<think>\n")
adapter = Path(OUTPUT_DIR, "adapter").resolve()
with export.replacing(adapter) as folder:  # whole, or not at all
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
for file in sorted(adapter.iterdir()):
    print(f"{file.stat().st_size / 1024:10,.1f} KiB  {file.name}")

# %%
loss = report.losses(log)
report.summary(
    OUTPUT_DIR,
    loss_start=loss.head(5).mean(),
    loss_end=loss.tail(5).mean(),
    held_out_loss_before=held_out_before,
    held_out_loss_after=held_out_after,
    **{f"{name}_before": value for name, value in figures["before"].items()},
    **{f"{name}_after": value for name, value in figures["after"].items()},
    format_wrong_tag=figures["after, wrong tag"]["format"],
    case_keys_before=case_before,
    case_keys_after=case_after,
    case_in_training_rows=case_in_training_rows,
    rows_cut=rows_cut,
    rows_without_answer=rows_without_answer,
    answer_after=after[0].text,
    seconds=cost.seconds,
    peak_gib=cost.peak_gib,
)

# %% [markdown] lang="en"
# ## 10 · When it goes wrong
#
# | what you see | why | what to do |
# |---|---|---|
# | it thinks on and on and never answers | rows were cut before their answer, or `MAX_NEW_TOKENS` is too small | count the cut rows; raise the limit and look again |
# | the parser finds no thinking | the tag differs between training, prompt and parser | `prompts.check_agreement` on one row, before training |
# | `<think>` twice in the output | the prompt ends with it and the model writes it again (chat templates add it, too) | choose one place for it |
# | format perfect, answers no better | form is easy to learn, knowledge is not | measure both; more and better data, not more steps |
# | out of memory after a few steps | a long row came up | lower `MAX_SEQ_LENGTH` and look at the plot above for what that costs |
# | `MissingSecret: the secret WANDB_API_KEY is not set` | `UPLOAD = True` without a key | set the secret, or `UPLOAD = False` |
#
# **Now you:** set `DROP_TOO_LONG = False` and `MAX_SEQ_LENGTH` to half. Which figure suffers first, the format or the agreement?

# %% [markdown] lang="zh"
# ## 10 · 出了问题怎么办
#
# | 现象 | 原因 | 办法 |
# |---|---|---|
# | 一直想，就是不作答 | 样本在答案之前就被截断，或者 `MAX_NEW_TOKENS` 太小 | 数一数被截断的样本；放宽上限再看 |
# | 解析不出思考部分 | 训练、提问、解析三处用的标签不一样 | 开训前拿一条样本跑 `prompts.check_agreement` |
# | 输出里有两个 `<think>` | 提示词结尾已经有一个，模型又写了一个（聊天模板有时也会加） | 只在一处加 |
# | 格式全对，答案没变好 | 格式好学，知识难学 | 两样都要量；该加的是好数据，不是步数 |
# | 训了几步突然显存不够 | 轮到了一条很长的样本 | 调小 `MAX_SEQ_LENGTH`，并对照上面的图看代价 |
# | 报 `MissingSecret`，点名 `WANDB_API_KEY` | `UPLOAD = True` 却没有密钥 | 设置这个密钥，或者 `UPLOAD = False` |
#
# **轮到你了**：把 `DROP_TOO_LONG` 设成 `False`，`MAX_SEQ_LENGTH` 减半，重新跑。先变差的是格式，还是答案？
