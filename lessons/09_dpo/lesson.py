# %% [markdown] lang="en"
# After SFT a model answers, and answers everything: the careful way and the careless way, as its data did. Here you show it pairs, a better and a worse answer to the same question, and it learns to lean. That is DPO: no reward model, no sampling, a loss of one line.
#
# **For** those who have done lesson 01. The pairs are Chinese, but you need not read Chinese.
# **At the end you have** a DPO loss worked out by hand from four log-probabilities and found equal to the trainer's, a reference model that costs almost no memory and is the right one, margins and accuracy on held-out pairs, and answers from before and after. Also a look at what was lost.
#
# The medical answers are an exercise, not advice.
#
# The steps, the same in every lesson: parameters → machine → data → load → before → LoRA → train → after → save.

# %% [markdown] lang="zh"
# SFT 之后，模型什么都会答，也什么都敢答：数据里有认真的说法，也有不负责任的说法，它照单全收。这一课给它看成对的回答，同一个问题，一个好、一个差，让它学会偏向好的那边。这就是 DPO：不用奖励模型，不用边训边采样，损失函数只有一行。
#
# **适合谁**：学过第 01 课的人。
# **学完你会得到**：用四个对数概率亲手算出的 DPO 损失，和训练器算的对得上；一个几乎不占显存、而且没有选错的参考模型；留出数据上的间隔曲线和偏好准确率；训练前后的回答对照。还要看看丢了什么。
#
# 里面的问诊内容只是练习，不是医疗建议。
#
# 每一课都是同样的步骤：参数 → 机器 → 数据 → 加载 → 训练前 → LoRA → 训练 → 训练后 → 保存。

# %% [markdown] lang="en"
# ## 1 · Parameters
#
# `MODEL` is any model after SFT: an Instruct model from the Hub, or the adapter that lesson 02 saved (`MODEL = "outputs/02_chinese_medical_sft/adapter"` and `TEMPLATE = "medical"`). `WANTED` and `UNWANTED` are search patterns of your own, for things that a good answer holds and that no answer should: here a numbered list, and an apology or a parting wish. They never enter training; they only count.

# %% [markdown] lang="zh"
# ## 1 · 参数
#
# `MODEL` 可以是任何做过 SFT 的模型：Hub 上的 Instruct 模型，或者第 02 课存下来的适配器（`MODEL = "outputs/02_chinese_medical_sft/adapter"`，同时 `TEMPLATE = "medical"`）。`WANTED` 和 `UNWANTED` 是你自己定的正则：好回答里该有什么，什么样的话不该出现。这里分别是编号列表，以及道歉和客套。它们不参加训练，只用来数数。

# %% tags=["parameters"]
MODEL = "unsloth/Qwen2.5-7B-Instruct-bnb-4bit"  # Hub name, folder, or nano/qwen2-medical-sft
MODEL_SOURCE = "huggingface"  # or "modelscope"
TEMPLATE = "chat"  # or "medical", with which lesson 02 trains
DATASET = "hiyouga/DPO-En-Zh-20k"  # Hub name, or a .json / .jsonl file of pairs
DATASET_CONFIG = "zh"  # its part; None for a file
ROWS = 3000  # the first ones; None for all
OUTPUT_DIR = "outputs/09_dpo"
MAX_SEQ_LENGTH = 1024  # tokens, prompt and answer; longer pairs are dropped
LOAD_IN_4BIT = True
GRADIENT_CHECKPOINTING = True  # recompute instead of remember; False is faster, where memory allows
BETA = 0.1  # how tightly the reference holds
LOSS = "sigmoid"  # DPO's own; "ipo" and others in TRL's documentation
MAX_STEPS = 150
EVAL_STEPS = 50  # look at the held-out pairs this often
BATCH_SIZE = 2  # pairs, so twice as many texts
GRADIENT_ACCUMULATION = 4
LEARNING_RATE = 1e-5  # a tenth of SFT's or less
HELD_OUT = 64  # pairs kept away from training
ASKED = 64  # of these, how many are answered before and after
WANTED = "(?m)^1[.、]"
UNWANTED = "抱歉|对不起|希望这"
MAX_NEW_TOKENS = 384
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
import pandas as pd
import torch
import torch.nn.functional as F
from peft import PeftModel
from transformers import set_seed
from trl import DPOConfig, DPOTrainer
from trl.trainer.utils import use_adapter
from unsloth import FastLanguageModel

from helpers import data, export, generation, hub, memory, prompts, report, scores

# %% [markdown] lang="en"
# ## 3 · Data
#
# A preference row is a prompt and two answers. Files write it in half a dozen ways: ShareGPT's `conversations`, TRL's `prompt` / `chosen` / `rejected`, `question` / `response_chosen` … `load_preferences` reads them all into one. Pairs of two equal answers teach nothing and are dropped; so are repeated prompts, because one of them in the held-out part would be a question already seen.

# %% [markdown] lang="zh"
# ## 3 · 数据
#
# 一条偏好数据，是一个提示词加两个回答。写法却有好几种：ShareGPT 的 `conversations`，TRL 的 `prompt` / `chosen` / `rejected`，还有 `question` / `response_chosen` 等等。`load_preferences` 把它们读成同一个样子。两个回答一模一样的，学不到东西，丢掉；重复的提示词也丢掉，万一有一份落进留出数据，就等于提前泄题。

# %%
pairs = data.load_preferences(DATASET, DATASET_CONFIG, ROWS)
data.report_marks(pairs, "{prompt}{chosen}{rejected}")  # rows that forge a turn, if any
shown = (pair | {"prompt": pair["prompt"][-1]["content"]} for pair in pairs)
report.side_by_side(({name: text[:600] for name, text in pair.items()} for pair in shown), 4)

# %% [markdown] lang="en"
# What is preferred here? DPO learns whatever tells the two columns apart, also what nobody meant. If the chosen answers are the longer ones, it learns to be long. So count before you train:

# %% [markdown] lang="zh"
# 这份数据到底在偏好什么？两列之间只要有差别，DPO 都会学，不管是不是你的本意。要是选中的总是更长，它学到的就是「写长一点」。所以先数一数，再训练：


# %%
def count(answers):
    """What the answers look like from outside."""
    texts = pd.Series(answers)
    return {
        "characters": texts.str.len().mean(),
        "wanted": texts.str.contains(WANTED).mean(),
        "unwanted": texts.str.contains(UNWANTED).mean(),
    }


chosen_longer = sum(len(c) > len(r) for c, r in zip(pairs["chosen"], pairs["rejected"])) / len(pairs)
print(f"the chosen answer is the longer one in {chosen_longer:.0%} of {len(pairs):,} pairs")
pd.DataFrame({name: count(pairs[name][:]) for name in ("chosen", "rejected")}).round(2)

# %% [markdown] lang="en"
# ## 4 · Load the model after SFT
#
# Why after SFT? DPO moves probability between answers that the model gives already. A base model gives neither; it has to learn to answer first.

# %% [markdown] lang="zh"
# ## 4 · 加载 SFT 之后的模型
#
# 为什么要在 SFT 之后？DPO 做的事，是在模型本来就说得出的回答之间挪动概率。基座模型哪一种都说不出来，得先学会回答。

# %%
dtype = runtime.dtype()
memory.free("model", "trainer", "parameter")  # of an earlier run
model, tokenizer = FastLanguageModel.from_pretrained(
    model_name=hub.resolve_model(MODEL, MODEL_SOURCE),
    max_seq_length=MAX_SEQ_LENGTH,
    dtype=dtype,
    load_in_4bit=LOAD_IN_4BIT,
)
print(f"{model.num_parameters():,} parameters in {model.get_memory_footprint() / 1024**2:,.1f} MiB, on {model.device}")
print(f"comes with an adapter: {isinstance(model, PeftModel)}")

# %% [markdown] lang="en"
# The prompt in the template of the SFT, and each answer with its **EOS**. Both answers of a pair must fit: an answer that is cut off has no end, and DPO would compare the beginnings only.

# %% [markdown] lang="zh"
# 提示词套上 SFT 用的那个模板，两个回答各自带上 **EOS**。一对回答都得放得下：被截断的没有结尾，DPO 比的就只是开头了。


# %%
def to_text(messages):
    """The prompt up to where the answer begins."""
    if TEMPLATE == "medical":
        return prompts.medical_zh(messages[-1]["content"])
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    return text.removeprefix(tokenizer.bos_token or "")  # the tokenizer writes it itself


def finish(pair):
    answers = {name: pair[name] + tokenizer.eos_token for name in ("chosen", "rejected")}
    texts = {"question": pair["prompt"][-1]["content"], "prompt": to_text(pair["prompt"]), **answers}
    longest = max(len(tokenizer(texts["prompt"] + answer)["input_ids"]) for answer in answers.values())
    return texts | {"tokens": longest}


texts = pairs.map(finish)
print(texts[0]["prompt"] + texts[0]["chosen"])
report.length_plot(texts["tokens"][:], MAX_SEQ_LENGTH, "tokens of prompt and longer answer")

# %%
fitting = texts.filter(lambda pair: pair["tokens"] <= MAX_SEQ_LENGTH).remove_columns("tokens")
train_rows, held_out = data.hold_out(fitting, HELD_OUT, SEED, DATASET)
print(f"{len(texts) - len(fitting):,} pairs too long; {len(train_rows):,} to train on, {len(held_out)} held out")

# %% [markdown] lang="en"
# ## 5 · Before training
#
# The held-out questions, sampled at temperature 1: what counts is how often the model gives each kind of answer, not only which one it likes best. Without a judge, a plain rule says which way an answer leans: is its wording (ROUGE-L) nearer to the chosen or to the rejected answer of that question?

# %% [markdown] lang="zh"
# ## 5 · 训练之前
#
# 用温度 1 采样，问留出的问题：要看的是各种说法各占多少，而不只是它最爱说的那一句。没有裁判，就用一条摆在明面上的规则：回答的字面（ROUGE-L）更像这道题的选中回答，还是更像落选回答？


# %%
def write():
    """A sampled answer to each question, which way it leans, and what it looks like."""
    FastLanguageModel.for_inference(model)
    set_seed(SEED)
    plain = {"do_sample": True, "temperature": 1.0, "top_k": 0, "top_p": 1.0, "repetition_penalty": 1.0}
    asked = held_out.select(range(ASKED))
    answers = pd.DataFrame(generation.complete(model, tokenizer, asked["prompt"][:], MAX_NEW_TOKENS, **plain))
    like = {name: map(scores.rouge_l, zip(answers["text"]), zip(asked[name])) for name in ("chosen", "rejected")}
    answers["lean"] = [c - r for c, r in zip(like["chosen"], like["rejected"])]
    return answers


def figures(answers):
    nearer = {"nearer_to_chosen": (answers["lean"] > 0).mean()}
    return nearer | count(answers["text"]) | answers[["tokens", "stopped"]].mean().to_dict()


before = write()
print(before["text"][0])
pd.Series(figures(before)).round(3)

# %% [markdown] lang="en"
# ## 6 · LoRA, and the reference
#
# DPO needs two models: the **policy**, which learns, and the **reference**, the model as it was after SFT, which says how likely each answer was before. A model that comes with an adapter goes on training that one; any other gets a new one.

# %% [markdown] lang="zh"
# ## 6 · LoRA 与参考模型
#
# DPO 要两个模型：一个是**策略模型**，它来学；一个是**参考模型**，也就是 SFT 刚做完时的自己，由它说出每个回答原来有多大可能。自带适配器的模型，就接着训那个适配器；没有的，新挂一个。

# %%
if not isinstance(model, PeftModel):
    model = FastLanguageModel.get_peft_model(
        model,
        r=16,
        lora_alpha=16,
        target_modules=["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
        use_gradient_checkpointing="unsloth" if GRADIENT_CHECKPOINTING else False,
        random_state=SEED,
    )
model.print_trainable_parameters()

# %% [markdown] lang="en"
# Held as a second model, the reference doubles the weights in memory. But policy and reference differ only in their adapters, so a copy of the *adapter* is enough: the same frozen weights serve both. (Computing the reference's log-probabilities once, beforehand, saves time but no memory here: TRL 1.15 copies the adapter all the same. Measured at the 7B shape in 4 bits: a peak of 11.8 GiB with a second model, 7.0 with a copy of the adapter.)

# %% [markdown] lang="zh"
# 参考模型如果单独放一份，权重占的显存就翻倍。可是两个模型只差一个适配器，所以**复制适配器**就够了：底下冻结的权重两边共用。（训练前把参考的对数概率一次算好，在这里只省时间，不省显存：TRL 1.15 照样会复制适配器。7B 形状、4 比特实测：另放一个模型，峰值 11.8 GiB；复制适配器，7.0。）

# %%
adapter_bytes = sum(p.numel() * p.element_size() for name, p in model.named_parameters() if "lora_" in name)
frozen_bytes = model.get_memory_footprint() - adapter_bytes
reference_costs = {
    "a second model": frozen_bytes + adapter_bytes,
    "a copy of the adapter": adapter_bytes,
    "the adapter switched off": 0,
}
pd.DataFrame({"more memory, MiB": {name: size / 1024**2 for name, size in reference_costs.items()}}).round(3)

# %% [markdown] lang="en"
# ## 7 · Train

# %% [markdown] lang="zh"
# ## 7 · 训练

# %%
config = DPOConfig(
    output_dir=f"{OUTPUT_DIR}/checkpoints",
    beta=BETA,
    loss_type=[LOSS],
    max_length=MAX_SEQ_LENGTH,
    precompute_ref_log_probs=False,  # True: once, beforehand; saves a pass in every step
    gradient_checkpointing=GRADIENT_CHECKPOINTING,
    per_device_train_batch_size=BATCH_SIZE,
    per_device_eval_batch_size=BATCH_SIZE,
    gradient_accumulation_steps=GRADIENT_ACCUMULATION,
    max_steps=MAX_STEPS,
    eval_strategy="steps",
    eval_steps=EVAL_STEPS,
    learning_rate=LEARNING_RATE,
    warmup_steps=MAX_STEPS // 10,
    optim="adamw_8bit",
    bf16=dtype == torch.bfloat16,
    fp16=dtype == torch.float16,
    logging_steps=1,
    save_strategy="no",
    report_to="none",
    seed=SEED,
)

# %%
FastLanguageModel.for_training(model)
if "ref" in model.peft_config:
    model.delete_adapter("ref")  # this cell runs again: the copy is taken anew
trainer = DPOTrainer(
    model=model,  # no ref_model: the trainer copies the adapter, under the name "ref"
    processing_class=tokenizer,
    train_dataset=train_rows,
    eval_dataset=held_out,
    args=config,
)
for name, parameter in list(model.named_parameters()):
    if parameter.requires_grad:  # of a 4-bit model TRL rounds them to 16 bits: small steps would vanish; "ref" is whole
        parameter.data = model.get_parameter(name.replace(".default.", ".ref.")).data.float().clone()
print(f"adapters: {list(model.peft_config)}, learning: {model.active_adapter}")

# %% [markdown] lang="en"
# One pair as the loss will see it: the same prompt twice, only the answers count. The prompt's tokens are grey.

# %% [markdown] lang="zh"
# 先看一对数据在损失函数眼里的样子：同一个提示词出现两次，只有回答算数，提示词的 token 是灰的。

# %%
from IPython.display import display

batch = next(iter(trainer.get_train_dataloader()))
labels = batch["input_ids"].masked_fill(batch["completion_mask"] == 0, report.IGNORED)
for row in (0, len(labels) // 2):  # a batch is all chosen answers, then all rejected ones
    read = batch["attention_mask"][row].bool()
    display(report.label_mask(tokenizer, batch["input_ids"][row][read], labels[row][read]))

# %% [markdown] lang="en"
# ### The loss, by hand
#
# How likely is an answer, for a model? Sum the log-probabilities of its tokens. Each pair takes four such sums: chosen and rejected, by policy and by reference.
#
# **Reward** of an answer: β · (log p of the policy − log p of the reference). **Margin**: reward of the chosen − reward of the rejected. **Loss**: −log σ(margin).

# %% [markdown] lang="zh"
# ### 手算损失
#
# 在一个模型看来，一个回答有多大可能？把它每个 token 的对数概率加起来就是。每对数据要四个这样的和：选中、落选，各由策略和参考算一次。
#
# 一个回答的**奖励**：β ·（策略的 log p − 参考的 log p）。**间隔**：选中的奖励 − 落选的奖励。**损失**：−log σ(间隔)。


# %%
@torch.no_grad()
def log_probability(ids, labels):
    logits = model(input_ids=ids[None]).logits[0].float()
    return -F.cross_entropy(logits[:-1], labels[1:], reduction="sum", ignore_index=report.IGNORED)


def judged(adapter):
    """log p of the held-out pairs with one adapter (None: without any), chosen and rejected: 2 × pairs."""
    FastLanguageModel.for_inference(model)
    columns = []
    with use_adapter(model, adapter):
        for batch in map(trainer._prepare_inputs, trainer.get_eval_dataloader()):
            labels = batch["input_ids"].masked_fill(batch["completion_mask"] == 0, report.IGNORED)
            rows = zip(batch["input_ids"], labels, batch["attention_mask"].bool())
            columns.append(torch.stack([log_probability(ids[read], label[read]) for ids, label, read in rows]))
    return torch.cat([column.view(2, -1) for column in columns], dim=1).cpu()


def margins(policy, reference):
    chosen, rejected = BETA * (policy - reference)
    return chosen - rejected


# %% [markdown] lang="en"
# Before the first step, policy and reference are the same model. So every margin must be **exactly 0**, and the loss −log σ(0) = 0.693. Check it. The second line shows the classic mistake: switch the adapter off and call that the reference. If the SFT sits in that adapter, the reference is now the *base* model, which never learned to answer; the margins are far from 0 before anything was learned, and nothing holds the model near what the SFT taught. (With a new adapter the two lines agree: there was nothing in it.)

# %% [markdown] lang="zh"
# 走第一步之前，策略和参考是同一个模型，所以每个间隔都必须**正好是 0**，损失是 −log σ(0) = 0.693。查一查。第二行是最常见的错误：把适配器一关，就当它是参考模型。要是 SFT 学到的东西就在这个适配器里，那参考就成了**基座模型**，它根本没学过怎么回答；还什么都没学，间隔就已经离 0 很远，SFT 学到的东西也没有谁来守着了。（新挂的适配器里什么都没有，两行会一样。）

# %%
start = judged("default")
references = {"a copy of the adapter": judged("ref"), "the adapter switched off": judged(None)}
step_0 = {name: margins(start, reference) for name, reference in references.items()}
accuracy_before = (start[0] > start[1]).float().mean().item()
print(f"held-out pairs whose chosen answer is the likelier one: {accuracy_before:.1%}")
table = {
    "mean margin": torch.mean,
    "largest |margin|": lambda m: m.abs().max(),
    "loss": lambda m: -F.logsigmoid(m).mean(),
}
pd.DataFrame({name: {of: f(m).item() for of, f in table.items()} for name, m in step_0.items()}).T.round(4)

# %%
FastLanguageModel.for_training(model)
trainer.evaluate()
with memory.track() as cost:
    trainer.train()
print(cost)

# %% [markdown] lang="en"
# Thin lines are steps, thick ones their mean, dots the held-out pairs. The margin should rise, the accuracy too. Then look at the last two panels, which most people skip: the margin is a *difference*. It also grows when both answers become less likely and the rejected one falls faster. Is the chosen answer likelier than at the start?

# %% [markdown] lang="zh"
# 细线是每一步，粗线是滑动平均，圆点是留出数据。间隔该往上走，准确率也是。然后看最后两格，大多数人会跳过：间隔是个**差**，两个回答的概率都在降、只是落选的降得更快，间隔照样在涨。选中的回答，比开始时更可能了吗？

# %%
trainer.evaluate()
log = trainer.state.log_history
report.preference_plot(log)

# %% [markdown] lang="en"
# ## 8 · After training
#
# First your own loss against the trainer's, over the held-out pairs. Now that it is no longer 0.693, agreement means something.

# %% [markdown] lang="zh"
# ## 8 · 训练之后
#
# 先拿你自己算的损失，和训练器在留出数据上的对一对。现在它不再是 0.693 了，对得上才说明问题。

# %%
end = judged("default")
margin = margins(end, references["a copy of the adapter"])
by_hand = -F.logsigmoid(margin).mean().item()
evaluated = report.preferences(log, held_out=True)
by_hand_error = abs(by_hand - evaluated["loss"].iloc[-1])
print(f"by hand {by_hand:.6f}, trainer {evaluated['loss'].iloc[-1]:.6f}, difference {by_hand_error:.1e}")

# %%
accuracy_after = (end[0] > end[1]).float().mean().item()
held_out_figures = {
    "preference_accuracy": (accuracy_before, accuracy_after),  # the chosen answer is the likelier one
    "margin_above_0": (0.0, (margin > 0).float().mean().item()),
    "margin": (step_0["a copy of the adapter"].mean().item(), margin.mean().item()),
    "chosen_logp": (start[0].mean().item(), end[0].mean().item()),
    "rejected_logp": (start[1].mean().item(), end[1].mean().item()),
}
pd.DataFrame(held_out_figures, index=["before", "after"]).T.round(3)

# %% [markdown] lang="en"
# These were given answers. What does the model write itself? The same questions, seed and temperature. The **win rate** sets each answer against the one that the SFT model wrote: which of the two leans further to the chosen side? A draw counts half, so two equal models would get 50 %. With 64 answers one standard error is 6 points: do not read much into less than twice that.

# %% [markdown] lang="zh"
# 刚才判的是现成的回答。让模型自己写，会写成什么样？同样的问题、种子和温度。**胜率**是拿每个回答和 SFT 模型写的那个比：哪个更偏向选中那边？打平算一半，两个一样的模型应该得 50 %。64 个回答，一个标准误就是 6 个百分点；差距不到两个标准误，别当真。

# %%
after = write()
won = (after["lean"] > before["lean"]) + 0.5 * (after["lean"] == before["lean"])
win_rate = float(won.mean())
print(f"wins against the SFT model: {win_rate:.1%}")
figures_before, figures_after = figures(before), figures(after)
pd.DataFrame({"before": figures_before, "after": figures_after}).round(3)

# %%
asked = held_out.select(range(ASKED))
table = pd.DataFrame({"question": asked["question"], "before": before["text"], "after": after["text"]})
table["chosen"] = [text.removesuffix(tokenizer.eos_token) for text in asked["chosen"]]
report.side_by_side(table.head(6).to_dict("records"))

# %% [markdown] lang="en"
# ### What was lost?
#
# Everything has a price. Does `tokens` grow? Then a part of the gain is length. Does `stopped` fall? Then answers run on. And facts: DPO teaches which *manner* to take, not what is true. Of the answers that hold `WANTED`, how many hold the very words that the chosen answer has there? (With the default pattern those words are only "1.", which says nothing about facts: let `WANTED` match the fact itself, as the trimmed run does with the clinic's name.)

# %% [markdown] lang="zh"
# ### 丢了什么？
#
# 凡事都有代价。`tokens` 变大了吗？那提升里有一部分只是写得长。`stopped` 变小了吗？那是收不住尾了。还有事实：DPO 教的是用**哪种口气**说，教不了什么是对的。含有 `WANTED` 的回答里，有多少和选中回答里的那几个字完全一致？（默认的正则只匹配到「1.」，所以这个数和事实无关；要查事实，就让 `WANTED` 匹配事实本身，就像精简运行里匹配门诊名称那样。）

# %%
import re


def right(answers):
    """Of the answers that hold WANTED: the share whose match stands in the chosen answer too."""
    found = [(re.search(WANTED, text), chosen) for text, chosen in zip(answers["text"], asked["chosen"])]
    hits = [match[0] in chosen for match, chosen in found if match]
    return sum(hits) / max(1, len(hits))


right_before, right_after = right(before), right(after)
print(f"of what is wanted, right: {right_before:.1%} → {right_after:.1%}")

# %% [markdown] lang="en"
# ## 9 · Save
#
# Name the adapter: without `selected_adapters` the copy, `ref`, would be saved beside it. The folder loads as in lesson 01; it holds SFT and DPO together.

# %% [markdown] lang="zh"
# ## 9 · 保存
#
# 要写明存哪个适配器：不写 `selected_adapters`，那份 `ref` 副本也会一起存下来。加载方法和第 01 课一样；SFT 和 DPO 学到的都在里面。

# %%
from pathlib import Path

adapter = Path(OUTPUT_DIR, "adapter").resolve()
with export.replacing(adapter) as folder:  # whole, or not at all
    model.save_pretrained(folder, selected_adapters=["default"])
    tokenizer.save_pretrained(folder)
for file in sorted(adapter.iterdir()):
    print(f"{file.stat().st_size / 1024:10,.1f} KiB  {file.name}")

# %%
compared = held_out_figures | {name: (figures_before[name], figures_after[name]) for name in figures_before}
compared["right"] = (right_before, right_after)
changed = int((after["lean"] - before["lean"]).argmax())  # the answer that changed its leaning most
report.summary(
    OUTPUT_DIR,
    pairs=len(train_rows),
    margin_step_0=step_0["a copy of the adapter"].abs().max().item(),
    margin_step_0_adapter_off=step_0["the adapter switched off"].abs().max().item(),
    by_hand_error=by_hand_error,
    win_rate=win_rate,
    **{f"{name}_before": pair[0] for name, pair in compared.items()},
    **{f"{name}_after": pair[1] for name, pair in compared.items()},
    question=asked["question"][changed],
    answer_before=before["text"][changed],
    answer_after=after["text"][changed],
    seconds=cost.seconds,
    peak_gib=cost.peak_gib,
)

# %% [markdown] lang="en"
# ## 10 · When it goes wrong
#
# | what you see | why | what to do |
# |---|---|---|
# | the margin is not 0 at step 0 | the reference is not the model that you start from | compare the adapters; merge the SFT first, or let the trainer copy the adapter |
# | the loss stays at 0.693 | the learning rate is too small, or the pairs say nothing | ten times the rate; read twenty pairs yourself |
# | the margin soars, the answers fall apart | too far from the reference: rate or steps too large | stop earlier, a tenth of the rate, raise `BETA` |
# | the chosen answers' log p falls | the cheapest way to a margin is to push both down | a smaller rate; an SFT term (`loss_type=["sigmoid", "sft"]`) |
# | answers get longer and longer | the chosen ones are longer in the data | balance the lengths of the pairs; `loss_type=["sigmoid_norm"]` |
# | out of memory where SFT had room | two texts a pair, two passes a text | halve `BATCH_SIZE`, lower `MAX_SEQ_LENGTH` |
#
# **Now you:** set `LEARNING_RATE` to ten times its value and run again. The margin will be far better. And the answers? (Guess first; the reading has the figures.)

# %% [markdown] lang="zh"
# ## 10 · 出了问题怎么办
#
# | 现象 | 原因 | 办法 |
# |---|---|---|
# | 第 0 步间隔就不是 0 | 参考模型不是训练的起点 | 核对适配器；先合并 SFT 再训，或者让训练器复制适配器 |
# | 损失一直停在 0.693 | 学习率太小，或者两个回答看不出好坏 | 学习率乘 10；自己读二十对数据 |
# | 间隔猛涨，回答却散了架 | 离参考太远：学习率或步数过大 | 早点停，学习率除以 10，加大 `BETA` |
# | 选中回答的 log p 在跌 | 要拉开间隔，最省事的办法是两边一起压低 | 减小学习率；加一项 SFT 损失（`loss_type=["sigmoid", "sft"]`） |
# | 回答越写越长 | 数据里选中的本来就更长 | 平衡两边的长度；`loss_type=["sigmoid_norm"]` |
# | SFT 放得下，DPO 显存不够 | 一对两段文本，一段要过两遍模型 | `BATCH_SIZE` 减半，减小 `MAX_SEQ_LENGTH` |
#
# **轮到你了**：把 `LEARNING_RATE` 调成十倍再跑一遍。间隔会漂亮得多。回答呢？（先猜一猜，数字在讲解里。）
