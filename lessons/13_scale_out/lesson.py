# %% [markdown] lang="en"
# One GPU, one process, one notebook: so far. Here lesson 01's training becomes a script, and runs as several processes: on the GPUs of one host, then on several hosts by the same command line. The first question is not how fast that is, but whether it is still **the same training**. You will see when it is, when it silently is not, and what the processes send one another.
#
# **For** those who have done lesson 01. Two GPUs show the speed (Kaggle lends two T4s); two processes on a CPU show all the rest.
# **At the end you have** a `train.py` of your own for `torchrun`, the proof that one process and two learn the same weights, a run that survived the death of a process, and a table of what a 14B model takes of each GPU, by the way of training and the number of GPUs.
#
# The steps are those of every lesson, each with one question more: and with two processes?

# %% [markdown] lang="zh"
# 前面的课都是一块 GPU、一个进程、一个笔记本。这一课把第 01 课的训练变成脚本，用好几个进程来跑：先是一台机器上的几块卡，再用同一条命令跨机器。先别急着问快了多少，要问的是：这还是**同一次训练**吗？什么情况下是，什么情况下悄悄变了样，进程之间到底传了些什么，这里都能亲眼看到。
#
# **适合谁**：学过第 01 课的人。有两块卡能看到提速（Kaggle 免费给两块 T4）；没有卡，CPU 上开两个进程，其余的一样能看全。
# **学完你会得到**：一个能交给 `torchrun` 的 `train.py`；单进程和双进程练出同一套权重的证据；一次中途死了进程还能接着跑完的训练；一张表，一个 14B 的模型，用哪种练法、几块卡，每块各占多少。
#
# 步骤和每一课一样，只是每到一处都多问一句：换成两个进程呢？

# %% [markdown] lang="en"
# ## 1 · Parameters
#
# `PROCESSES` is the number of GPUs to train on, and with it one process each. The rest is lesson 01's, but 20 steps, and the eight rows of a step as 2 × 4, two at a time in four turns (gradient accumulation), so that there are turns to share. `SAVE_STEPS` is how often a checkpoint is written, which matters once something can die.

# %% [markdown] lang="zh"
# ## 1 · 参数
#
# `PROCESSES` 是用几块卡，一块卡一个进程。其余和第 01 课一样，只是练 20 步，一步的 8 行拆成 2 × 4，每次 2 行、累积 4 次（梯度累积），好让几个进程来分。`SAVE_STEPS` 是隔几步存一次检查点：机器一多，总有坏的时候，这个数就要紧了。

# %% tags=["parameters"]
MODEL = "unsloth/Qwen2.5-7B-Instruct-bnb-4bit"  # Hub name, folder, or nano/qwen2
DATASET = "yahma/alpaca-cleaned"  # Hub name, or a .json / .jsonl file
OUTPUT_DIR = "outputs/13_scale_out"
PROCESSES = 2  # one a GPU
MAX_SEQ_LENGTH = 2048
LOAD_IN_4BIT = True
GRADIENT_CHECKPOINTING = True  # recompute instead of remember; False is faster, where memory allows
MAX_STEPS = 20
BATCH_SIZE = 2
GRADIENT_ACCUMULATION = 4  # of one process; several share it
LEARNING_RATE = 2e-4
PACKING = True
HELD_OUT = 100
SAVE_STEPS = 5  # a checkpoint every so many steps, where a crash is rehearsed
DTYPE = ""  # "float32" makes two runs comparable to the last digits, and slow
TENSOR_PARALLEL = 0  # GPUs that vLLM cuts the model over; 0 leaves vLLM out
TENSOR_PARALLEL_MODEL = "Qwen/Qwen2.5-7B-Instruct"
SEED = 3407
VRAM_GB = 8  # of each GPU; stop early on a machine with less
DISK_GB = 12  # 16 more for TENSOR_PARALLEL_MODEL

# %% [markdown] lang="en"
# ## 2 · The machine
#
# A GPU belongs to one process: two on the same card only wait for one another, and NCCL, which carries their messages, refuses. With fewer GPUs than processes, a nano model's processes share the CPU, and talk through *gloo* instead. Everything but the speed is the same.
#
# This notebook itself does not touch a GPU. What trains are processes that it starts.

# %% [markdown] lang="zh"
# ## 2 · 机器
#
# 一块卡归一个进程：两个进程挤一块卡，只会互相等；负责传话的 NCCL 也不答应。卡比进程少的时候，纳米模型的几个进程就都跑在 CPU 上，改由 *gloo* 传话。除了速度，其他都一样。
#
# 这个笔记本自己不碰 GPU，训练的是它启动的那些进程。

# %%
from helpers import launch, parameters, runtime

parameters.check(globals())
runtime.require(
    vram_gb=VRAM_GB,
    disk_gb=DISK_GB,
    folder=OUTPUT_DIR,
    models=[MODEL, TENSOR_PARALLEL_MODEL] if TENSOR_PARALLEL else [MODEL],
)
cards = launch.cards(PROCESSES, vram_gb=VRAM_GB)
print(runtime.describe())
print(f"{PROCESSES} processes, on GPUs {', '.join(cards)}" if cards else f"{PROCESSES} processes, on the CPU")

# %%
import json
import shutil
import sys
from pathlib import Path

import pandas as pd
import torch

from helpers import hub, parallel, report, serve, vram

Path(OUTPUT_DIR).mkdir(parents=True, exist_ok=True)
model = hub.resolve_model(MODEL)

# %% [markdown] lang="en"
# ## 3 · The notebook's training as a script
#
# `torchrun` starts a *file*, once a process. So the cells of lesson 01 that train are copied out, without those that only show something. Lines with `# +` are new. There are few, and each is there because several processes run the same file:
#
# | added | why |
# |---|---|
# | `take_options(globals())` | nobody edits a file on eight hosts: `--max-steps 20` on the command line |
# | `share(…)` | two processes with 2 × 4 rows would make a step of 16; sharing the four turns (with 8 × 1, which has one turn, its rows) keeps it at 8, and the learning rate right |
# | `average_tokens_across_devices` | section 5 |
# | `ddp_find_unused_parameters = False` | every adapter weight gets a gradient in every step; looking for others costs time, and fails with Unsloth's checkpointing |
# | `last_checkpoint(…)` | started again after a crash, it goes on from where it was |
# | `save_model`, `watch.save` | the first process writes, the others do not |

# %% [markdown] lang="zh"
# ## 3 · 把笔记本里的训练变成脚本
#
# `torchrun` 启动的是一个**文件**，几个进程就启动几遍。所以把第 01 课里管训练的单元格抄出来，只用来展示的不要。带 `# +` 的行是新加的。加得不多，每一行都是因为同一个文件要由好几个进程来跑：
#
# | 加了什么 | 为什么 |
# |---|---|
# | `take_options(globals())` | 总不能在八台机器上改文件：用命令行 `--max-steps 20` |
# | `share(…)` | 两个进程都按 2 × 4 行来，一步就成了 16 行；把 4 次累积分摊下去（8 × 1 只有一次，就分那 8 行），一步仍是 8 行，学习率才不用改 |
# | `average_tokens_across_devices` | 见第 5 节 |
# | `ddp_find_unused_parameters = False` | 每一步每个适配器权重都有梯度，不必去找没用上的；找也费时间，还会和 Unsloth 的梯度检查点冲突 |
# | `last_checkpoint(…)` | 崩了重启，从断的地方接着练 |
# | `save_model`、`watch.save` | 只让第一个进程写文件 |

# %%
script = launch.export("notebooks/en/01_alpaca_sft.ipynb", f"{OUTPUT_DIR}/train.py")
print(script.read_text(encoding="utf-8"))

# %% [markdown] lang="en"
# ## 4 · Processes that talk
#
# `torchrun` gives each process a `RANK` and a `WORLD_SIZE`. From there most is built on one call, `all_reduce`: each brings a tensor, each takes the sum home. Two processes, by hand:

# %% [markdown] lang="zh"
# ## 4 · 进程怎么说话
#
# `torchrun` 给每个进程一个编号 `RANK` 和总数 `WORLD_SIZE`。剩下的大多靠一个调用搭起来：`all_reduce`，每人拿出一个张量，每人拿回总和。两个进程，亲手来一次：

# %%
# %%writefile {OUTPUT_DIR}/talk.py
import time

import torch
import torch.distributed as dist

dist.init_process_group("gloo")  # between GPUs: nccl
rank, size = dist.get_rank(), dist.get_world_size()
mine = torch.full((3,), float(rank + 1))
print(f"process {rank} of {size} brings {mine.tolist()}", flush=True)
dist.all_reduce(mine)  # the sum, everywhere
print(f"process {rank} of {size} takes  {mine.tolist()}", flush=True)

for millions in (0.1, 1, 4, 16):
    numbers = torch.ones(int(millions * 1e6))
    dist.barrier()
    began = time.perf_counter()
    dist.all_reduce(numbers)
    if rank == 0:
        print(f"all_reduce of {millions:g} million numbers: {time.perf_counter() - began:.4f} s", flush=True)
dist.destroy_process_group()

# %%
command = launch.torchrun(f"{OUTPUT_DIR}/talk.py", processes=2)
print(launch.shown(command))
said = launch.run(command, f"{OUTPUT_DIR}/talk.log", **launch.on([]))
print("\n".join(line for line in said.splitlines() if line.startswith(("process", "all_reduce"))))

# %% [markdown] lang="en"
# In a ring of *N* processes each sends 2 (*N* − 1) / *N* times the data: once all of it when there are two, and never quite twice, however many there are. So what counts is how much there is to add up. For each optimizer step that is the gradient of what is trained: of the 7B model all weights, or of LoRA the adapter.

# %% [markdown] lang="zh"
# *N* 个进程围成一圈，每个进程要发出的数据是总量的 2 (*N* − 1) / *N* 倍：两个进程正好一倍，进程再多也到不了两倍。所以关键在于要加的东西有多少。每个优化步要加的，是被训练的那些权重的梯度：7B 全参训练是全部权重，LoRA 只有适配器。

# %%
shape = vram.SHAPES["Qwen2.5-7B"]
links = {"NVLink, 400 GB/s": 400e9, "PCIe, 12 GB/s": 12e9, "10 Gbit/s Ethernet": 1.2e9}
rows = {
    "all weights, 16 bits": parallel.all_reduce_bytes(shape.parameters, processes=2, bytes_each=2),
    "LoRA, 32 bits": parallel.all_reduce_bytes(shape.lora(16), processes=2, bytes_each=4),
}
table = pd.DataFrame({name: {"GB sent": sent / 1e9} | {link: sent / speed for link, speed in links.items()}
                      for name, sent in rows.items()})  # fmt: skip
table.T.round(3).rename(columns=lambda name: name if name == "GB sent" else f"s over {name}")

# %% [markdown] lang="en"
# LoRA's gradient is about a hundredth. Its step of a second or two hides it even behind Ethernet: that is why LoRA scales over slow links, and why a training of all weights wants NVLink.
#
# ## 5 · What DDP does, and where it goes wrong
#
# *Distributed data parallel*: each process has the whole model and reads other rows; after `backward` the gradients are averaged, so all make the same step. Two things decide whether that is the step which one process would have made.
#
# **First, the rows.** One process takes micro-batches in order, `GRADIENT_ACCUMULATION` of them a step. Accelerate deals the same micro-batches out in turn, so that a step sees the same rows. Give each process its own part of the data instead (`dataset.shard`, a file a process, as one streams), and every step sees others: as good a training, but nothing to compare.

# %% [markdown] lang="zh"
# LoRA 的梯度只有约百分之一。它一步要算一两秒，哪怕走以太网，传这点东西也藏得进去：所以 LoRA 在慢网络上也能铺开，而全参训练离不开 NVLink。
#
# ## 5 · DDP 做了什么，又会在哪儿出错
#
# *DDP（分布式数据并行）*：每个进程都有整个模型，各读各的数据；`backward` 之后把梯度平均，于是大家迈出同样的一步。这一步和单进程会迈的那一步是不是同一步，取决于两件事。
#
# **第一，数据行。** 单进程按顺序取小批，`GRADIENT_ACCUMULATION` 个小批凑一步。Accelerate 把同样这些小批轮流发给各进程，一步里看到的行不变。要是给每个进程各分一块数据（`dataset.shard`，或者流式读取时一个进程一个文件），每一步看到的就是另外一些行：训练没有变差，但没法逐步对比。

# %%
from accelerate.data_loader import BatchSamplerShard
from torch.utils.data import BatchSampler, SubsetRandomSampler

ROWS = 24


def shuffled(rows, at_once):
    """Micro-batches of these row numbers, in an order of the seed."""
    return BatchSampler(SubsetRandomSampler(rows, torch.Generator().manual_seed(SEED)), at_once, drop_last=False)


at_once, turns = launch.share(BATCH_SIZE, GRADIENT_ACCUMULATION, PROCESSES)
alone = list(shuffled(range(ROWS), BATCH_SIZE))
dealt = [list(BatchSamplerShard(shuffled(range(ROWS), at_once), PROCESSES, rank)) for rank in range(PROCESSES)]
parts = [list(shuffled(range(rank, ROWS, PROCESSES), at_once)) for rank in range(PROCESSES)]
first = {"alone": alone[:GRADIENT_ACCUMULATION]}
first |= {f"dealt out, process {rank}": share[:turns] for rank, share in enumerate(dealt)}
first |= {f"own part, process {rank}": share[:turns] for rank, share in enumerate(parts)}
pd.DataFrame({"rows of the first step, by micro-batch": first})


# %%
def seen(shares, step=0, turns=turns):
    """The rows of one step, over all processes."""
    return sorted(row for share in shares for batch in share[step * turns : (step + 1) * turns] for row in batch)


def alike(shares):
    """Whether each of the first steps sees the rows that it would see in one process."""
    return all(seen(shares, step) == seen([alone], step, GRADIENT_ACCUMULATION) for step in range(3))


rows_alike, rows_alike_own_part = alike(dealt), alike(parts)
print(f"a step sees the same rows as one process:  dealt out {rows_alike}, own part {rows_alike_own_part}")

# %% [markdown] lang="en"
# **Second, the tokens.** The loss is a mean over tokens. If each process takes the mean over *its own* tokens and the gradients are then averaged, a token in the process with short rows counts more than one in the process with long rows. A mean of means is not the mean. The mend: count the tokens of all first, then divide each sum by that.

# %% [markdown] lang="zh"
# **第二，token 数。** 损失是对 token 求平均。要是每个进程先对**自己的** token 求平均，再把梯度平均，那么分到短样本的进程里，一个 token 的分量就比别处重：平均的平均，不等于平均。办法是先数清大家一共多少 token，各自的总和都除以它。

# %%
# %%writefile {OUTPUT_DIR}/mean.py
import torch
import torch.distributed as dist

dist.init_process_group("gloo")
rank, size = dist.get_rank(), dist.get_world_size()
torch.manual_seed(0)
weights = torch.ones(4, requires_grad=True)
rows = [torch.randn(tokens, 4) for tokens in (3, 12)]  # a short row for process 0, a long one for process 1
losses = [(row @ weights).square() for row in rows]  # one a token

(wanted,) = torch.autograd.grad(torch.cat(losses).mean(), weights, retain_graph=True)  # one process with both rows
mine = losses[rank]
tokens = torch.tensor(float(len(mine)))
dist.all_reduce(tokens)  # 15, everywhere
for name, loss in {"means": mine.mean(), "sums": mine.sum() / tokens * size}.items():
    (gradient,) = torch.autograd.grad(loss, weights, retain_graph=True)
    dist.all_reduce(gradient)
    gradient /= size  # the average: this is all that DDP does
    if rank == 0:
        print(f"{name} {((gradient - wanted).norm() / wanted.norm()).item()}", flush=True)
dist.destroy_process_group()

# %%
said = launch.run(launch.torchrun(f"{OUTPUT_DIR}/mean.py", processes=2), f"{OUTPUT_DIR}/mean.log", **launch.on([]))
error = {
    name: float(value) for name, value in (line.split() for line in said.splitlines() if line[:4] in ("mean", "sums"))
}
print(
    f"gradient off by {error['means']:.0%} with each process's own mean, by {error['sums']:.0e} with sums over all tokens"
)

# %% [markdown] lang="en"
# ## 6 · Train: one process, then two
#
# The same script, the same options. Only what stands before it differs.

# %% [markdown] lang="zh"
# ## 6 · 训练：先一个进程，再两个
#
# 同一个脚本，同样的选项，不同的只有前面那半句。

# %%
OPTIONS = {
    "MODEL": model,
    "DATASET": DATASET,
    "MAX_SEQ_LENGTH": MAX_SEQ_LENGTH,
    "LOAD_IN_4BIT": LOAD_IN_4BIT,
    "GRADIENT_CHECKPOINTING": GRADIENT_CHECKPOINTING,
    "MAX_STEPS": MAX_STEPS,
    "BATCH_SIZE": BATCH_SIZE,
    "GRADIENT_ACCUMULATION": GRADIENT_ACCUMULATION,
    "LEARNING_RATE": LEARNING_RATE,
    "PACKING": PACKING,
    "HELD_OUT": HELD_OUT,
    "DTYPE": DTYPE,
    "SEED": SEED,
    "VRAM_GB": VRAM_GB,
    "DISK_GB": 1,
}


# %%
def options(name, **more):
    """The script's options, with a fresh folder of its own."""
    shutil.rmtree(f"{OUTPUT_DIR}/{name}", ignore_errors=True)  # a checkpoint of an earlier run would be gone on from
    return OPTIONS | {"OUTPUT_DIR": f"{OUTPUT_DIR}/{name}"} | more


def outcome(name):
    return json.loads(Path(OUTPUT_DIR, name, "run.json").read_text(encoding="utf-8"))


# %%
command = [sys.executable, script, *launch.as_options(options("one"))]
print(launch.shown(command))
launch.run(command, f"{OUTPUT_DIR}/one.log", **launch.on(cards[:1]))
one = outcome("one")
print(f"\n{len(one['losses'])} steps, loss {one['losses'][0]:.4f} → {one['losses'][-1]:.4f}")

# %%
command = launch.torchrun(script, options("two"), processes=PROCESSES)
print(launch.shown(command))
launch.run(command, f"{OUTPUT_DIR}/two.log", **launch.on(cards))
two = outcome("two")
print(f"\n{len(two['losses'])} steps, loss {two['losses'][0]:.4f} → {two['losses'][-1]:.4f}")

# %% [markdown] lang="en"
# And once more wrongly on purpose: each process divides by its own tokens.

# %% [markdown] lang="zh"
# 再故意错一次：每个进程只除以自己的 token 数。

# %%
command = launch.torchrun(script, options("own_tokens", AVERAGE_TOKENS=False), processes=PROCESSES)
launch.run(command, f"{OUTPUT_DIR}/own_tokens.log", **launch.on(cards))
own_tokens = outcome("own_tokens")

losses = pd.DataFrame({"one": one["losses"], "two": two["losses"], "two, own tokens": own_tokens["losses"]})
losses.index = pd.Index(one["steps"], name="step")
losses["two − one"] = losses["two"] - losses["one"]
losses["own tokens − one"] = losses["two, own tokens"] - losses["one"]
losses.T.round(6)

# %% [markdown] lang="en"
# The difference is no noise: it is in every step, and nothing warns. `average_tokens_across_devices` is on by default today; in a loop of your own it is yours to do. With packing every row has the same length, and the fault hides.
#
# Losses may agree by chance. Weights cannot: compare the adapters that were saved, number by number.

# %% [markdown] lang="zh"
# 这个差别不是噪声：步步都有，也没有任何警告。如今 `average_tokens_across_devices` 默认是开的；自己写训练循环时，就得自己来。开了打包，每行一样长，这个错就藏起来了。
#
# 损失可能碰巧一致，权重不会。把存下来的适配器逐个数字比一比：

# %%
from safetensors.torch import load_file


def weight_difference(a, b):
    """The largest difference between two adapters, relative to the largest weight."""
    first, second = (load_file(Path(OUTPUT_DIR, name, "adapter", "adapter_model.safetensors")) for name in (a, b))
    largest = max(weight.abs().max().item() for weight in first.values())
    return max((first[name] - second[name]).abs().max().item() for name in first) / largest


worst = {"two": weight_difference("one", "two"), "two, own tokens": weight_difference("one", "own_tokens")}
print("adapter against that of one process, largest difference:", {name: f"{d:.1e}" for name, d in worst.items()})
parallel.run_table({"one": one, "two": two, "two, own tokens": own_tokens})

# %%
speed = parallel.run_table({"one": one, "two": two})["tokens/s"]
efficiency = parallel.efficiency(speed["one"], speed["two"], PROCESSES)
print(
    f"{speed['one']:,} → {speed['two']:,} tokens/s: {speed['two'] / speed['one']:.2f} times, efficiency {efficiency:.0%}"
)

# %% [markdown] lang="en"
# That is *strong* scaling: the same step, shared. Each process gets half of the work, and the fixed costs of a step stay. *Weak* scaling gives each GPU as much as before (`--gradient-accumulation` times *N*): better efficiency, a larger step, another training. On a laptop both processes share the same cores, and the number says nothing. The reading has it from real GPUs.
#
# ## 7 · Across hosts, and a crash
#
# The same command line on each host, with a place to meet:
#
# ```
# torchrun --nproc-per-node=8 --nnodes=2 --node-rank=0 --rdzv-backend=c10d --rdzv-endpoint=host0:29500 train.py …
# torchrun --nproc-per-node=8 --nnodes=2 --node-rank=1 --rdzv-backend=c10d --rdzv-endpoint=host0:29500 train.py …
# ```
#
# Here two torchruns on this machine play two hosts. With `--max-restarts` they start all processes again when one dies. As soon as the first checkpoint is written, one is killed.

# %% [markdown] lang="zh"
# 这叫**强扩展**：一步的量不变，大家分。每个进程的活少了一半，一步里的固定开销却没少。**弱扩展**是每块卡的活和原来一样多（`--gradient-accumulation` 乘以 *N*）：效率更好看，但一步变大了，是另一次训练。笔记本电脑上两个进程抢同样的核，这个数说明不了什么；真卡上的数字在讲解里。
#
# ## 7 · 跨机器，顺便演习一次崩溃
#
# 每台机器上敲同一条命令，再给一个碰头的地方：
#
# ```
# torchrun --nproc-per-node=8 --nnodes=2 --node-rank=0 --rdzv-backend=c10d --rdzv-endpoint=host0:29500 train.py …
# torchrun --nproc-per-node=8 --nnodes=2 --node-rank=1 --rdzv-backend=c10d --rdzv-endpoint=host0:29500 train.py …
# ```
#
# 这里用本机上的两个 torchrun 扮演两台机器。加上 `--max-restarts`，有进程死了，就全体重启。第一个检查点一写完，就杀掉一个进程。

# %%
hosts = launch.cards(2, vram_gb=VRAM_GB)
endpoint, shared = f"127.0.0.1:{runtime.free_port()}", options("crash", SAVE_STEPS=SAVE_STEPS)
lines = [launch.torchrun(script, shared, nodes=2, node=node, endpoint=endpoint, restarts=3) for node in range(2)]
print(launch.shown(lines[1]))
logs = [f"{OUTPUT_DIR}/host_{node}.log" for node in range(2)]
running = [launch.start(line, log, **launch.on(hosts[n : n + 1])) for n, (line, log) in enumerate(zip(lines, logs))]

try:
    launch.kill_one(running[1], after=f"{OUTPUT_DIR}/crash/checkpoints/checkpoint-{SAVE_STEPS}/trainer_state.json")
    said = "\n".join(launch.wait(process, log) for process, log in zip(running, logs))
finally:
    launch.stop(running)  # where one has failed, the other must not train on
crash = outcome("crash")

# %%
went_on = [line for line in said.splitlines() if line.startswith("going on from step")]
resumed_from = max(int(line.split(":")[0].split()[-1]) for line in went_on) if went_on else 0
restarts = len(went_on) // 2  # both processes say it
print("\n".join(went_on))
print(f"\nlast loss, nobody killed: {two['losses'][-1]:.6f}\nlast loss, one killed:    {crash['losses'][-1]:.6f}")
print(f"adapters differ by {weight_difference('two', 'crash'):.1e}")

# %% [markdown] lang="en"
# A checkpoint holds the adapter, Adam's moments, the learning rate's place and the random states; the sampler is set forward to the next row. Only so is the end the same. A checkpoint that a dying process left half-written is passed over.
#
# ## 8 · What does not fit: share the weights out
#
# DDP keeps everything on every GPU. ZeRO and FSDP keep a share of it on each, and gather a layer just when it is needed. What each GPU then holds before the first activation:

# %% [markdown] lang="zh"
# 检查点里有适配器、Adam 的动量、学习率走到哪儿、随机状态；采样器也要快进到下一行。这些齐了，终点才会一样。进程临死没写完的检查点会被跳过。
#
# ## 8 · 放不下怎么办：把权重分着放
#
# DDP 每块卡上都放全套。ZeRO 和 FSDP 把每样东西切开，每块卡只放其中一片，用到哪一层，临时凑齐哪一层。激活值还没出现之前，每块卡要放多少：

# %%
states = parallel.states_table("Qwen2.5-14B", gpus=[1, 2, 4, 8, 16])
states.round(1)

# %%
parallel.states_plot(states)

# %% [markdown] lang="en"
# FSDP by hand, in PyTorch alone: `fully_shard` on each layer, and on the whole. Each process holds its share of every weight, and the loss is the same.

# %% [markdown] lang="zh"
# 不借助别的库，用 PyTorch 亲手做一次 FSDP：对每一层调用 `fully_shard`，再对整体来一次。每个进程手里只有每个权重的一片，损失不变。

# %%
# %%writefile {OUTPUT_DIR}/shard.py
import torch
import torch.distributed as dist
from torch.distributed.fsdp import fully_shard

dist.init_process_group("gloo")
torch.manual_seed(0)
model = torch.nn.Sequential(*[torch.nn.Linear(256, 256) for _ in range(8)])
inputs = torch.randn(16, 256)
whole = sum(weight.numel() for weight in model.parameters())
expected = model(inputs).square().mean().item()

for layer in model:
    fully_shard(layer)  # gathered before its forward, dropped after, gathered again for backward
fully_shard(model)
optimizer = torch.optim.AdamW(model.parameters())  # so its moments are shares, too
loss = model(inputs).square().mean()
loss.backward()  # gradients are summed and dealt out at once: reduce-scatter
optimizer.step()
mine = sum(weight.to_local().numel() for weight in model.parameters())
print(f"share {dist.get_rank()} {mine} {whole} {loss.item()} {expected}", flush=True)
dist.destroy_process_group()

# %%
said = launch.run(launch.torchrun(f"{OUTPUT_DIR}/shard.py", processes=2), f"{OUTPUT_DIR}/shard.log", **launch.on([]))
shares = pd.DataFrame([line.split()[1:] for line in said.splitlines() if line.startswith("share")]).astype(float)
shares.columns = ["process", "holds", "of", "loss", "loss in one process"]
shares.set_index("process").sort_index()

# %% [markdown] lang="en"
# For a real model Accelerate does that, told by a file. Beside this lesson stand `fsdp.yaml` and `fsdp.py`, plain TRL, for models that one GPU cannot hold (it wants GPUs: on a CPU Accelerate does not shard):
#
# ```
# accelerate launch --config_file lessons/13_scale_out/fsdp.yaml --num_processes 2 lessons/13_scale_out/fsdp.py
# ```

# %% [markdown] lang="zh"
# 真模型由 Accelerate 来做这件事，怎么做写在一个文件里。本课文件夹里有 `fsdp.yaml` 和 `fsdp.py`，用的是原版 TRL，留给一块卡装不下的模型（要有 GPU：在 CPU 上 Accelerate 不做分片）：
#
# ```
# accelerate launch --config_file lessons/13_scale_out/fsdp.yaml --num_processes 2 lessons/13_scale_out/fsdp.py
# ```

# %%
print(Path("lessons/13_scale_out/fsdp.yaml").read_text(encoding="utf-8"))

# %% [markdown] lang="en"
# ## 9 · Tensor parallelism: cut the matrices
#
# To *serve* a model, one request should be answered faster, not many rows trained at once. So the matrices themselves are cut. The first one of the MLP by columns: each process computes its part of the hidden layer alone. The second by rows: each gets a part of the sum. One `all_reduce` a block.

# %% [markdown] lang="zh"
# ## 9 · 张量并行：把矩阵切开
#
# **部署**模型时，要的是一个请求更快答完，而不是一次多练几行。那就把矩阵本身切开。MLP 的第一个矩阵按列切：每个进程各算隐藏层的一段，互不打扰。第二个按行切：每个进程得到部分和。一个模块只要一次 `all_reduce`。

# %%
# %%writefile {OUTPUT_DIR}/cut.py
import torch
import torch.distributed as dist

dist.init_process_group("gloo")
rank, size = dist.get_rank(), dist.get_world_size()
torch.manual_seed(0)
x, up, down = torch.randn(4, 64), torch.randn(64, 300) / 8, torch.randn(300, 64) / 16
expected = torch.relu(x @ up) @ down

my_up = up.chunk(size, dim=1)[rank]  # columns: my part of the hidden layer
my_down = down.chunk(size, dim=0)[rank]  # the rows that multiply it
part = torch.relu(x @ my_up) @ my_down
dist.all_reduce(part)
print(f"cut {(part - expected).abs().max().item()} {my_up.numel() + my_down.numel()}", flush=True)
dist.destroy_process_group()

# %%
said = launch.run(launch.torchrun(f"{OUTPUT_DIR}/cut.py", processes=2), f"{OUTPUT_DIR}/cut.log", **launch.on([]))
cut_error = max(float(line.split()[1]) for line in said.splitlines() if line.startswith("cut"))
print(f"two halves, added up: largest difference {cut_error:.1e}")

# %% [markdown] lang="en"
# vLLM does it when told `tensor_parallel_size`. Set `TENSOR_PARALLEL = 2` on a machine with two GPUs and vLLM (lesson 10, section 1) to see it answer.

# %% [markdown] lang="zh"
# 在 vLLM 里，给一个 `tensor_parallel_size` 就行。有两块卡、装了 vLLM（见第 10 课第 1 节）的机器上，把 `TENSOR_PARALLEL` 设成 2，看它作答。

# %%
# %%writefile {OUTPUT_DIR}/serve.py
import sys
import time

from vllm import LLM, SamplingParams

if __name__ == "__main__":  # vLLM starts processes of its own, which read this file again
    engine = LLM(sys.argv[1], tensor_parallel_size=int(sys.argv[2]), max_model_len=2048)
    plan = SamplingParams(temperature=0, max_tokens=128)
    for asked in (1, 64):
        began = time.perf_counter()
        answers = engine.generate(["Why is the sky blue?"] * asked, plan)
        tokens = sum(len(answer.outputs[0].token_ids) for answer in answers)
        print(f"{asked} at once: {tokens / (time.perf_counter() - began):,.0f} tokens/s", flush=True)

# %%
if TENSOR_PARALLEL:
    python = Path(serve.find_vllm()).with_name("python")  # vLLM has packages of its own
    command = [python, f"{OUTPUT_DIR}/serve.py", hub.resolve_model(TENSOR_PARALLEL_MODEL), TENSOR_PARALLEL]
    said = launch.run(command, f"{OUTPUT_DIR}/serve.log", **launch.on(launch.cards(TENSOR_PARALLEL, vram_gb=VRAM_GB)))
    print("\n".join(line for line in said.splitlines() if " at once: " in line))
else:
    print("TENSOR_PARALLEL = 0: vLLM was left out")

# %%
report.summary(
    OUTPUT_DIR,
    processes=two["processes"],
    rows_alike=rows_alike,
    rows_alike_own_part=rows_alike_own_part,
    tokens_one=sum(one["tokens"]),
    tokens_two=sum(two["tokens"]),
    worst_loss_difference=losses["two − one"].abs().max(),
    worst_loss_difference_own_tokens=losses["own tokens − one"].abs().max(),
    worst_weight_difference=worst["two"],
    weights_alike_on_all=len(set(two["weights"])) == 1,
    gradient_error_of_means=error["means"],
    gradient_error_of_sums=error["sums"],
    restarts=restarts,
    resumed_from=resumed_from,
    last_loss_difference_after_crash=abs(crash["losses"][-1] - two["losses"][-1]),
    share_of_weights=shares["holds"].max() / shares["of"].max(),
    sharded_loss_error=(shares["loss"] - shares["loss in one process"]).abs().max(),
    tensor_parallel_error=cut_error,
    tokens_per_s_two=int(speed["two"]),
    efficiency=efficiency,
)

# %% [markdown] lang="en"
# ## 10 · When it goes wrong
#
# | what you see | why | what to do |
# |---|---|---|
# | it hangs at the start | the endpoint cannot be reached, or the hosts have different `--nnodes` | try the port from the other host (`nc -vz host0 29500`); `NCCL_DEBUG=INFO`, `NCCL_SOCKET_IFNAME` for the right network card |
# | it hangs in the middle | one process left the others: an `if rank == 0:` around something that all must call | every `all_reduce` must be met by all; saving a sharded model too |
# | `Duplicate GPU detected` | two processes on one card | `--nproc-per-node` at most the number of GPUs |
# | loss differs from one process from the first step | other rows, or means of means | sections 5 and 6, with `DTYPE = "float32"` |
# | with more GPUs the loss is higher after the same number of rows (by steps it looks better) | the step has grown with them | share the accumulation, or raise the learning rate with it |
# | out of memory with two GPUs, not with one | the process sees both cards and puts things on the first | one process a GPU; look at `nvidia-smi` |
# | after a restart it begins at step 0 | another `OUTPUT_DIR` on another host | checkpoints belong on storage that all hosts share |
#
# What comes after one host (data from an object store, checkpoints, preemption, cost) stands on a page of its own, `after_one_host.en.md`, beside the reading.
#
# **Now you:** set `GRADIENT_ACCUMULATION = 8` and compare again. Then delete the line with `launch.share` from the `train.py` in `OUTPUT_DIR` (without section 3, which would write the file anew) and run the cell of the two processes once more: each now takes all 8 turns. What has changed, and which setting would have to change with it?

# %% [markdown] lang="zh"
# ## 10 · 出了问题怎么办
#
# | 现象 | 原因 | 办法 |
# |---|---|---|
# | 一开始就卡住 | 碰头地址连不上，或者各机器的 `--nnodes` 不一致 | 从另一台机器试试端口（`nc -vz host0 29500`）；`NCCL_DEBUG=INFO`，用 `NCCL_SOCKET_IFNAME` 指定网卡 |
# | 跑到一半卡住 | 有进程掉队：把人人都得调用的东西写进了 `if rank == 0:` | 每个 `all_reduce` 都得所有进程到齐；保存分片模型也一样 |
# | `Duplicate GPU detected` | 两个进程挤一块卡 | `--nproc-per-node` 不要超过卡数 |
# | 从第一步起损失就和单进程不同 | 看到的行不同，或者求了平均的平均 | 设 `DTYPE = "float32"`，对照第 5、6 节 |
# | 卡多了，看过同样多的数据，损失反而更高（按步数看倒更好） | 一步的量跟着变大了 | 分摊梯度累积；不然就相应调大学习率 |
# | 一块卡够，两块卡反而显存不够 | 进程看得见两块卡，把东西都放到了第一块 | 一个进程一块卡；看看 `nvidia-smi` |
# | 重启后又从第 0 步开始 | 不同机器上的 `OUTPUT_DIR` 不是同一个地方 | 检查点要放在所有机器共享的存储上 |
#
# 一台机器之后的事（从对象存储读数据、检查点、抢占、成本）另有一页，`after_one_host.zh.md`，和讲解放在一起。
#
# **轮到你了**：把 `GRADIENT_ACCUMULATION` 设成 8，再比一遍。然后打开 `OUTPUT_DIR` 里的 `train.py`，删掉 `launch.share` 那一行（别重跑第 3 节，它会把文件重写一遍），再跑一次双进程那格：现在每个进程都要走满 8 个小批。变的是什么？还有哪个设置应该跟着变？
