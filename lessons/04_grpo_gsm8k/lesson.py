# %% [markdown] lang="en"
# Until now you showed a model what to write. Here nobody does. The model answers each question eight times; five short functions give points; what scored better than its siblings becomes likelier. That is GRPO, the method behind DeepSeek-R1. Its forerunner R1-Zero learned to reason by it without a single line of reasoning data.
#
# **For** those who have done lesson 01; no reinforcement learning needed.
# **At the end you have** reward functions that you have tried to cheat, the advantage of a group worked out by hand and found equal to the trainer's, a curve for every reward, and the accuracy on held-out problems before and after.
#
# The steps, the same in every lesson: parameters → machine → data → load → before → LoRA → train → after → save.

# %% [markdown] lang="zh"
# 前几课都是把标准答案摆给模型看，这一课不摆了。每道题让模型自己答八遍，用五个小函数打分，比同组兄弟答得好的，以后就更容易那样答。这就是 GRPO，DeepSeek-R1 用的方法；它的前身 R1-Zero 一行推理数据都没用，照样学会了推理。
#
# **适合谁**：学过第 01 课就行，不需要强化学习基础。
# **学完你会得到**：五个奖励函数，有没有空子可钻，你亲手试过；一组回答的优势，先手算，再和训练器算的对上；每个奖励的曲线；留出题目上训练前后的正确率。
#
# 每一课都是同样的步骤：参数 → 机器 → 数据 → 加载 → 训练前 → LoRA → 训练 → 训练后 → 保存。

# %% [markdown] lang="en"
# ## 1 · Parameters
#
# `BATCH_SIZE × GRADIENT_ACCUMULATION` completions make a step: 8 × 4 = 32, which is 4 questions with 8 answers each. 100 steps are a first taste; Unsloth's documentation advises 300 before you judge a run.
#
# `FAST_INFERENCE = True` lets vLLM write the answers, several times faster. It needs a GPU and vLLM installed, so it is off until you switch it on; section 2 then says what is missing.

# %% [markdown] lang="zh"
# ## 1 · 参数
#
# 一步用 `BATCH_SIZE × GRADIENT_ACCUMULATION` 条回答：8 × 4 = 32，也就是 4 道题、每题 8 个回答。100 步只是尝个味道；Unsloth 的文档建议至少等 300 步再下结论。
#
# `FAST_INFERENCE = True` 时由 vLLM 来写回答，能快好几倍。它要有 GPU，还要装好 vLLM，所以默认关着；打开以后缺什么，第 2 节会告诉你。

# %% tags=["parameters"]
MODEL = "unsloth/Qwen2.5-3B-Instruct"  # or unsloth/Meta-Llama-3.1-8B-Instruct, on a GPU with 20 GB
MODEL_SOURCE = "huggingface"  # or "modelscope"
DATASET = "openai/gsm8k"  # Hub name, or a .jsonl file with question and answer
OUTPUT_DIR = "outputs/04_grpo_gsm8k"
MAX_SEQ_LENGTH = 1024  # tokens, question and answer together
MAX_COMPLETION_LENGTH = 384  # tokens; an answer that is cut off earns little
LOAD_IN_4BIT = True
GRADIENT_CHECKPOINTING = True  # recompute instead of remember; False is faster, where memory allows
FAST_INFERENCE = False  # True: vLLM writes the answers
VLLM_MEMORY = 0.5  # its share of the GPU's memory
NUM_GENERATIONS = 8  # answers to each question: the group
BATCH_SIZE = 8
GRADIENT_ACCUMULATION = 4
MAX_STEPS = 100
LEARNING_RATE = 5e-6
LORA_RANK = 32
HELD_OUT = 64  # questions kept away from training
EVAL_BATCH = 32  # of these, how many are answered at once
SEED = 3407
VRAM_GB = 12  # stop early on a machine with less
DISK_GB = 10

# %% [markdown] lang="en"
# ## 2 · The machine
#
# First whether there is room; then `import unsloth`, before `transformers` and `trl`: it replaces parts of both, the loop of `GRPOTrainer` among them.

# %% [markdown] lang="zh"
# ## 2 · 机器
#
# 查完机器再 `import unsloth`，一定要放在 `transformers` 和 `trl` 之前：它会替换这两个库的一些实现，`GRPOTrainer` 的训练循环也在其中。

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
import unsloth  # first, see above
import pandas as pd
import torch
from transformers import set_seed
from trl import GRPOConfig, GRPOTrainer
from unsloth import FastLanguageModel

from helpers import data, export, generation, hub, memory, prompts, report, rewards

# %% [markdown] lang="en"
# ## 3 · Data and rewards
#
# A GSM8K row is a question and a solution that ends in `#### 72`. The solution is **not** shown to the model: only the number after `####` is used, as `target`, to check answers. The trainer wants a column `prompt`; every other column reaches the reward functions.

# %% [markdown] lang="zh"
# ## 3 · 数据与奖励
#
# GSM8K 的一行是一道题和一段以 `#### 72` 结尾的解答。解答**不给**模型看，只取 `####` 后面的数作为 `target`，用来对答案。训练器要的是 `prompt` 这一列，其余各列会原样传给奖励函数。

# %%
rows = data.load_gsm8k(DATASET).map(lambda row: {"prompt": prompts.gsm8k(row["question"])})
data.report_marks(rows, "{question}")  # rows that forge a turn, if any
train_rows, held_out = data.hold_out(rows, HELD_OUT, SEED, DATASET)
print(f"{len(train_rows):,} questions to train on, {len(held_out)} held out")
report.side_by_side(train_rows.select_columns(["question", "answer", "target"]), 3)

# %% [markdown] lang="en"
# Five functions give points: 2 for the right number, 0.5 each for a bare whole number, the exact form and the rough form, up to 0.5 for single tags. The small ones are a staircase: whoever cannot yet earn the 2 can already earn something. Here is the one that matters most; the others are in `helpers/rewards.py`.

# %% [markdown] lang="zh"
# 五个函数打分：数算对了得 2 分；答案是个光秃秃的整数、格式严丝合缝、格式大致对，各得 0.5 分；标签一个一个数，最多 0.5 分。小分是台阶：2 分一时够不着，先够得着小分也好。最要紧的那个函数打印在下面，其余的在 `helpers/rewards.py` 里。

# %%
import inspect

print(inspect.getsource(rewards.correctness_reward_func))

# %% [markdown] lang="en"
# A reward function is a specification, and training will find every hole in it. So try it on good and bad answers first. The right one here is 72:

# %% [markdown] lang="zh"
# 奖励函数就是需求说明，有漏洞，训练一定会钻进去。所以先拿好答案、坏答案试一试。这里的正确答案是 72：

# %%
FORM = "<reasoning>\n{}\n</reasoning>\n<answer>\n{}\n</answer>\n"
attempts = {
    "as it should be": FORM.format("48 / 2 = 24\n48 + 24 = 72", "72"),
    "right, with a unit": FORM.format("48 + 24 = 72", "72 clips"),
    "wrong number": FORM.format("48 + 2 = 50", "50"),
    "two numbers to choose from": FORM.format("Not sure.", "72 or 50"),
    "all on one line": "<reasoning>24 + 48</reasoning> <answer>72</answer>",
    "no tags": "The answer is 72.",
}
scores = pd.DataFrame(
    {f.__name__: f(completions=list(attempts.values()), target=["72"] * 6) for f in rewards.REWARD_FUNCS},
    index=attempts,
)
scores.rename(columns=lambda name: name.removesuffix("_reward_func")).assign(sum=scores.sum(axis=1))

# %% [markdown] lang="en"
# ### The advantage, by hand
#
# Say the six are a **group**: six answers of one model to one question. How good is an answer? Better or worse than its siblings: reward minus the group's mean, divided by the group's standard deviation. Every token of an answer gets that one number: above 0 it becomes likelier, below 0 less likely. PPO asks a second network, the value model, what to expect; GRPO asks the group.

# %% [markdown] lang="zh"
# ### 手算优势
#
# 把这六个回答看作**一组**：同一个模型、同一道题的六次作答。一个回答好不好，跟兄弟比：奖励减去组内平均，再除以组内标准差，得到的就是优势（advantage）。回答里的每个 token 都用这一个数：大于 0，以后更可能这样说；小于 0，更不可能。PPO 要另外养一个价值网络来估「本该得多少分」，GRPO 直接问同组的兄弟。


# %%
def advantage(reward):
    """Of each answer in a group: how far above the group's mean, in standard deviations."""
    return (reward - reward.mean()) / (reward.std() + 1e-4)


total = scores.sum(axis=1)
print(f"mean {total.mean():.3f}, standard deviation {total.std():.3f}\n")
pd.DataFrame({"reward": total, "minus the mean": total - total.mean(), "advantage": advantage(total)}).round(3)

# %% [markdown] lang="en"
# ## 4 · Load the model
#
# As in lesson 01, with one addition: with `FAST_INFERENCE`, vLLM is started beside the model and shares its weights, so that they are in memory once.

# %% [markdown] lang="zh"
# ## 4 · 加载模型
#
# 和第 01 课一样，只多一点：打开 `FAST_INFERENCE` 时，vLLM 会一并启动，与模型共用同一份权重，显存里只放一份。

# %%
vllm = {"fast_inference": True, "gpu_memory_utilization": VLLM_MEMORY, "max_lora_rank": LORA_RANK}
memory.free("model", "trainer")  # of an earlier run
model, tokenizer = FastLanguageModel.from_pretrained(
    model_name=hub.resolve_model(MODEL, MODEL_SOURCE),
    max_seq_length=MAX_SEQ_LENGTH,
    dtype=runtime.dtype(),
    load_in_4bit=LOAD_IN_4BIT,
    **(vllm if FAST_INFERENCE else {}),
)
print(f"{model.num_parameters():,} parameters in {model.get_memory_footprint() / 1024**2:,.1f} MiB, on {model.device}")

# %% [markdown] lang="en"
# What the model will read, in its chat template. The system prompt asks for the form that the rewards check: if the two disagree by one tag, the reward stays at 0.

# %% [markdown] lang="zh"
# 套上聊天模板，模型读到的就是下面这段。系统提示词里要的格式，必须正是奖励函数查的格式；差一个标签，奖励就一直是 0。


# %%
def to_text(messages):
    return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)


print(to_text(held_out[0]["prompt"]))

# %% [markdown] lang="en"
# ## 5 · Before training
#
# Asked at temperature 1, the way it will be asked in training: the whole spread of what the model says counts, not only its favourite answer. `top_k` and `top_p` are set, because many models bring values of their own that cut the spread.

# %% [markdown] lang="zh"
# ## 5 · 训练之前
#
# 用温度 1 采样来问，和训练时的问法一样：要看的是模型各种说法的整体分布，而不只是它最爱说的那一句。`top_k`、`top_p` 要写明，因为不少模型自带的默认值会把分布截窄。


# %%
def solve(rows):
    """A sampled answer to each question, whether it is right, and whether its form is exact."""
    FastLanguageModel.for_inference(model)
    set_seed(SEED)
    texts = [to_text(messages) for messages in rows["prompt"]]
    plain = {"do_sample": True, "temperature": 1.0, "top_k": 0, "top_p": 1.0, "repetition_penalty": 1.0}
    written = generation.complete(model, tokenizer, texts, MAX_COMPLETION_LENGTH, EVAL_BATCH, **plain)
    answers = pd.DataFrame({"text": [w.text for w in written], "tokens": [w.tokens for w in written]})
    answers["right"] = [r > 0 for r in rewards.correctness_reward_func(answers["text"], target=rows["target"])]
    answers["strict"] = [r > 0 for r in rewards.strict_format_reward_func(answers["text"])]
    return answers


before = solve(held_out)
print(f"right: {before['right'].mean():.1%}, exact form: {before['strict'].mean():.1%}\n\n{before['text'][0]}")

# %% [markdown] lang="en"
# ## 6 · LoRA
#
# An adapter as in lesson 01, of twice the rank. Here it has a second use: with the adapter switched off, the model is its own reference, should you want to hold it near its start (`beta` below).

# %% [markdown] lang="zh"
# ## 6 · LoRA
#
# 适配器的挂法和第 01 课一样，秩翻倍。在这里它还有一个用处：把适配器关掉，模型就是训练前的自己，想让它别跑太远时（下面的 `beta`），正好拿来当参照。

# %%
model = FastLanguageModel.get_peft_model(
    model,
    r=LORA_RANK,
    lora_alpha=LORA_RANK,  # the adapter counts alpha / r = 1 times
    target_modules=["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
    use_gradient_checkpointing="unsloth" if GRADIENT_CHECKPOINTING else False,
    random_state=SEED,
)
model.print_trainable_parameters()

# %% [markdown] lang="en"
# ## 7 · Train
#
# A step: draw questions, write a group of answers to each, score them, turn scores into advantages, push the adapter along them. Nobody says *how* to answer better.

# %% [markdown] lang="zh"
# ## 7 · 训练
#
# 一步做这些事：抽几道题，每题写一组回答，打分，把分数换成优势，顺着优势更新适配器。怎样才能答得更好，没有人告诉它。

# %%
config = GRPOConfig(
    output_dir=f"{OUTPUT_DIR}/checkpoints",
    num_generations=NUM_GENERATIONS,
    max_completion_length=MAX_COMPLETION_LENGTH,
    temperature=1.0,  # answers must differ, or there is nothing to compare
    use_vllm=FAST_INFERENCE,
    loss_type="dapo",  # every token weighs the same, in long and short answers
    beta=0.0,  # above 0: a penalty for moving away from the start
    mask_truncated_completions=False,  # an answer that was cut off is a bad one, not a missing one
    gradient_checkpointing=GRADIENT_CHECKPOINTING,
    per_device_train_batch_size=BATCH_SIZE,
    gradient_accumulation_steps=GRADIENT_ACCUMULATION,
    max_steps=MAX_STEPS,
    learning_rate=LEARNING_RATE,
    warmup_steps=MAX_STEPS // 20,
    max_grad_norm=0.1,  # few answers a step make noisy gradients
    bf16=runtime.dtype() == torch.bfloat16,
    fp16=runtime.dtype() == torch.float16,
    logging_steps=1,
    save_strategy="no",
    report_to="none",
    seed=SEED,
)

# %%
trainer = GRPOTrainer(
    model=model,
    processing_class=tokenizer,
    reward_funcs=rewards.REWARD_FUNCS,
    train_dataset=train_rows,
    args=config,
)

# %% [markdown] lang="en"
# Before any training, look at one group as the loss will see it. The trainer writes the answers, scores them and works out the advantages by its own code; beside them stand yours, from the function above. Where all eight earn the same, every advantage is 0 and the question teaches nothing.

# %% [markdown] lang="zh"
# 开训之前，先看一组损失函数眼里的数据。回答由训练器写、由训练器打分，优势也是它用自己的代码算的；旁边放着用上面那个函数算出来的。如果八个回答得分全一样，优势就全是 0，这道题什么也教不了。

# %%
model.train()
batch = trainer._generate_and_score_completions(next(iter(trainer.get_train_dataloader())))
logged = trainer._logs  # the last answers, their rewards and advantages
groups = pd.DataFrame(logged["rewards"]).assign(answer=[c[0]["content"] for c in logged["completion"]])
groups["reward"] = groups[list(logged["rewards"])].sum(axis=1)
groups["by hand"] = groups["reward"].groupby(groups.index // NUM_GENERATIONS).transform(advantage)
groups["trainer"] = batch["advantages"].float().cpu()
advantage_error = (groups["by hand"] - groups["trainer"]).abs().max()
print(f"largest difference over {len(groups)} answers: {advantage_error:.1e}")
report.side_by_side(groups[["answer", "reward", "by hand", "trainer"]].head(NUM_GENERATIONS).to_dict("records"))

# %%
with memory.track() as cost:
    trainer.train()
print(cost)

# %% [markdown] lang="en"
# Watch the parts, not the sum. The rewards for form usually rise first. `reward_std` is what there is to learn from: at 0 training stands still. The length falls when a model stops rambling, and rises when thinking pays.

# %% [markdown] lang="zh"
# 别只看总分，要分开看。通常格式分先涨。`reward_std` 是还能学到东西的余地，到 0 就学不动了。长度往下走，说明模型不再啰嗦；往上走，说明多想几步划算。

# %%
log = trainer.state.log_history
report.reward_plot(log)

# %% [markdown] lang="en"
# A reward that is always the same has stopped teaching. If everybody earns it, fine; if nobody does, look at the function.

# %% [markdown] lang="zh"
# 哪个奖励一直不变，它就不再起作用了。人人都拿到，那挺好；谁都拿不到，就该查查函数。

# %%
dead = report.dead_rewards(log, last=20)
for name, advice in dead.items():
    print(f"{name}: {advice}")
paid = len(trainer.reward_funcs)
print(f"{paid - len(dead)} of {paid} rewards still vary.")

# %% [markdown] lang="en"
# ## 8 · After training
#
# The same held-out questions, the same seed, the same temperature.

# %% [markdown] lang="zh"
# ## 8 · 训练之后
#
# 还是那些留出的题，同样的种子，同样的温度。

# %%
after = solve(held_out)
compared = pd.DataFrame({"before": before.mean(numeric_only=True), "after": after.mean(numeric_only=True)})
compared.round(3)

# %%
table = pd.DataFrame({"question": held_out["question"], "target": held_out["target"]})
table["before"], table["after"] = before["text"], after["text"]
report.side_by_side(table.head(6).to_dict("records"))

# %% [markdown] lang="en"
# Read the answers in both columns. Has the model learned arithmetic, or has it learned to *do* what it could do already: write the steps down, then the number between its tags? On a nano model it is plainly the second; the reading has the control experiment.

# %% [markdown] lang="zh"
# 两列回答对照着读一读。模型是学会了算术，还是学会了把本来就会的**用出来**：先写步骤，再把数放进标签里？在纳米模型上，明显是后者；讲解里有对照实验。

# %% [markdown] lang="en"
# ## 9 · Save the adapter
#
# Lesson 01 reloads it in a fresh process; it works the same here. One greedy answer with the adapter as saved:

# %% [markdown] lang="zh"
# ## 9 · 保存适配器
#
# 怎样在全新进程里加载，第 01 课讲过，这里一样。存好以后，用贪心解码答一题：

# %%
from pathlib import Path

adapter = Path(OUTPUT_DIR, "adapter").resolve()
with export.replacing(adapter) as folder:  # whole, or not at all
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
(greedy,) = generation.complete(model, tokenizer, [to_text(held_out[0]["prompt"])], MAX_COMPLETION_LENGTH)
print(f"{sum(f.stat().st_size for f in adapter.iterdir()) / 1024**2:.1f} MiB in {adapter.name}/\n")
print(f"{held_out[0]['question']}\n\n{greedy.text}")

# %%
learned = report.rewards(log)
changed = (before["text"] != after["text"]).idxmax()  # the first answer that is another now
report.summary(
    OUTPUT_DIR,
    accuracy_before=before["right"].mean(),
    accuracy_after=after["right"].mean(),
    strict_before=before["strict"].mean(),
    strict_after=after["strict"].mean(),
    tokens_before=before["tokens"].mean(),
    tokens_after=after["tokens"].mean(),
    reward_start=learned["reward"].head(10).mean(),
    reward_end=learned["reward"].tail(10).mean(),
    advantage_error=float(advantage_error),
    dead_rewards=list(dead),
    asked=len(held_out),
    question=held_out["question"][int(changed)],
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
# | a reward is 0 from start to end | the function asks for another form than the prompt; the model never stumbles on it | print completions, run the function on them by hand; add an easier reward as a step |
# | `reward_std` is 0, the loss is 0 | all answers of a group score alike: too easy, too hard, or the temperature too low | other questions, more generations, temperature 1 |
# | the reward rises, the answers get worse | the model found a hole in the rewards | read completions every 20 steps; close the hole, start again |
# | the length climbs to the limit, many answers are cut off | no EOS is reached, or talk is rewarded | raise `MAX_COMPLETION_LENGTH`, look at the ends |
# | the reward rises, then collapses | steps too large | halve the learning rate; `beta` = 0.001–0.04 |
# | a step takes a minute | most of it is writing the answers | `FAST_INFERENCE = True`; a shorter completion limit |
# | out of memory when vLLM starts | its share of memory | lower `VLLM_MEMORY`, free what else holds the GPU; in *training*: halve `BATCH_SIZE`, double `GRADIENT_ACCUMULATION` |
#
# **Now you:** take the reward for correctness away (`REWARD_FUNCS[:-1]` in the trainer) and run again. Which curves still rise? And how many answers are right? (Guess first; the reading has the figures.)

# %% [markdown] lang="zh"
# ## 10 · 出了问题怎么办
#
# | 现象 | 原因 | 办法 |
# |---|---|---|
# | 某个奖励从头到尾都是 0 | 函数要的格式和提示词不一致；模型从来没碰巧写对过 | 打印几条回答，手动喂给函数；加一个容易拿的奖励当台阶 |
# | `reward_std` 是 0，损失也是 0 | 一组回答得分全一样：题太易、太难，或者温度太低 | 换题，每题多采几个回答，温度设为 1 |
# | 奖励在涨，回答却变差 | 模型钻到了奖励的空子 | 每 20 步读几条回答；堵上漏洞，重新训练 |
# | 长度一路顶到上限，很多回答被截断 | 写不到 EOS，或者啰嗦也能得分 | 加大 `MAX_COMPLETION_LENGTH`，看看结尾写了什么 |
# | 奖励先涨后崩 | 步子太大 | 学习率减半；`beta` 取 0.001–0.04 |
# | 一步要一分钟 | 时间多半花在写回答上 | `FAST_INFERENCE = True`；把回答长度上限调小 |
# | vLLM 一启动就显存不足 | 它占的份额太大 | 减小 `VLLM_MEMORY`，关掉别的占显存的程序；要是到训练时才不够：`BATCH_SIZE` 减半，`GRADIENT_ACCUMULATION` 加倍 |
#
# **轮到你了**：去掉「答对」这一项奖励（训练器里改成 `REWARD_FUNCS[:-1]`），重新跑一遍。哪些曲线还在涨？答对的又有多少？（先猜一猜，数字在讲解里。）
