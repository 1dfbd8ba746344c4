# %% [markdown] lang="en"
# A tuned model in a notebook serves one person. Here it becomes a service: about a third of the size, behind the same HTTP API as OpenAI's, answering many people at once. Each step is measured, because each one can cost quality or speed.
#
# **For** those who have a model worth serving: from lesson 02, 09, or the Hub.
# **At the end you have** GPTQ done by hand on one layer and by a library on the whole model, a table of size, perplexity and damage for four ways to get to 4 bits, a server that you call from Python, from the command line and from a chat page, and a plot of what happens when eight people ask at once.
#
# The medical answers are an exercise, not advice.
#
# parameters → machine → load → data → before → by hand → quantize → after → serve.

# %% [markdown] lang="zh"
# 模型训好了，留在笔记本里只能自己用。这一课把它变成一个服务：体积压到三分之一左右，接口和 OpenAI 的一样，很多人可以同时问。每一步都要实测，因为每一步都可能丢质量、丢速度。
#
# **适合谁**：手里有个想部署的模型，第 02、09 课训的，或者 Hub 上的都行。
# **学完你会得到**：亲手在一层上做一遍 GPTQ，再用现成的库量化整个模型；一张表，比较四种 4 比特做法的体积、困惑度和损伤；一个服务，能从 Python、命令行和聊天页面去调用；还有一张图，看八个人同时提问会怎样。
#
# 里面的问诊内容只是练习，不是医疗建议。
#
# 参数 → 机器 → 加载 → 数据 → 量化前 → 手算 → 量化 → 量化后 → 部署。

# %% [markdown] lang="en"
# ## 1 · Parameters
#
# `MODEL` may be an adapter (`"outputs/09_dpo/adapter"`); it is merged first. Merging and quantizing hold the whole 16-bit model in RAM: 3 GB for 1.5B parameters, 15 GB for 7B, which Colab's free machine does not have and Kaggle's has. The figures below are for 1.5B. Lessons 02 and 09 train a 7B unless you chose a smaller `MODEL` there: its 16-bit server needs 14.2 GiB for the weights alone, so a GPU of 48 GB at a share of 0.4, and `DISK_GB = 50`. On a T4, train lesson 09 on `unsloth/Qwen2.5-1.5B-Instruct-bnb-4bit` first.
#
# `ENGINE` is the program that serves. vLLM needs a GPU and wants packages of its own; as a separate program it may live in an environment of its own. Once, in a cell: `!uv venv -q .vllm && uv pip install -q --python .vllm vllm==0.26.0`. Without a GPU: `"transformers"`, and the options that `lesson.toml` has in its trim.

# %% [markdown] lang="zh"
# ## 1 · 参数
#
# `MODEL` 可以是适配器（`"outputs/09_dpo/adapter"`），会先合并。合并和量化都要把整个 16 位模型放进内存：1.5B 要 3 GB，7B 要 15 GB，Colab 免费机器放不下，Kaggle 可以。下面的数字都按 1.5B 写。第 02、09 课默认训练的是 7B：它的 16 位服务光权重就要 14.2 GiB，按 0.4 的份额得有 48 GB 的显卡，`DISK_GB` 也要改成 50。只有 T4 的话，先用 `unsloth/Qwen2.5-1.5B-Instruct-bnb-4bit` 做第 09 课。
#
# `ENGINE` 是提供服务的程序。vLLM 要 GPU，对包的版本也有自己的要求；反正它是个独立的程序，不妨给它单独一个环境，在一个单元格里装一次就行：`!uv venv -q .vllm && uv pip install -q --python .vllm vllm==0.26.0`。没有 GPU 就填 `"transformers"`，选项照抄 `lesson.toml` 里精简版的那几项。

# %% tags=["parameters"]
MODEL = "unsloth/Qwen2.5-1.5B-Instruct"  # Hub name, folder, or adapter
MODEL_SOURCE = "huggingface"  # or "modelscope"
DATASET = "hiyouga/DPO-En-Zh-20k"  # lesson 09's pairs; of them the prompts and the chosen answers
DATASET_CONFIG = "zh"
ROWS = 1000  # the first ones; None for all
OUTPUT_DIR = "outputs/10_quantize_and_serve"
CALIBRATION_ROWS = 256
HELD_OUT = 64  # rows on which damage is measured
MAX_SEQ_LENGTH = 1024  # longer rows are dropped
BITS = 4
GROUP_SIZE = 128  # weights that share a scale; divides every layer's input width
ASKED = 16  # held-out questions to answer
MAX_NEW_TOKENS = 128
ENGINE = "vllm"  # or "transformers", or the path of a vllm program
SERVER_OPTIONS = {"max-model-len": 2048, "gpu-memory-utilization": 0.4}
ONE_AT_A_TIME = {"max-model-len": 2048, "gpu-memory-utilization": 0.4, "max-num-seqs": 1}
AT_ONCE = [1, 2, 4, 8, 16]  # requests under way
REQUESTS = 64  # at each of these levels
PUBLIC = False  # True: the chat page gets a public address, for a week at most
SEED = 3407
VRAM_GB = 12
DISK_GB = 20

# %% [markdown] lang="en"
# ## 2 · The machine

# %% [markdown] lang="zh"
# ## 2 · 机器

# %%
from helpers import parameters, runtime, serve

parameters.check(globals())
runtime.require(vram_gb=VRAM_GB, disk_gb=DISK_GB, folder=OUTPUT_DIR, written=0.5, models=[MODEL], source=MODEL_SOURCE)
print(runtime.describe())
print("server:", *serve.command(ENGINE, "MODEL", 8000, SERVER_OPTIONS))

# %%
import math
from pathlib import Path

import pandas as pd
import torch
import torch.nn.functional as F
from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
from datasets import Dataset
from llmcompressor import oneshot
from llmcompressor.modifiers.quantization import GPTQModifier, QuantizationModifier
from transformers import AutoConfig, AutoModelForCausalLM

from helpers import data, export, generation, load, memory, report

# %% [markdown] lang="en"
# ## 3 · Load
#
# The adapter, if there is one, goes into its base, and 16 bits of the result are written: what everything below is made from and measured against.

# %% [markdown] lang="zh"
# ## 3 · 加载
#
# 如果是适配器，先合并进基座，把 16 位的结果存下来：后面的量化都从它做起，好坏也都和它比。

# %%
output = Path(OUTPUT_DIR).resolve()
merged = output / "16bit"
memory.free("reference", "layer")  # of an earlier run
model, tokenizer, base = export.load_16bit(MODEL, MODEL_SOURCE)
with export.replacing(merged) as folder:  # whole, or not at all
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
print(f"{model.num_parameters():,} parameters, {model.dtype}, base {Path(base).name}")
memory.free("model")

# %% [markdown] lang="en"
# ## 4 · Data
#
# Calibration text shows the quantizer which inputs the layers will really meet. So it should look like the traffic: the model's own chat template, questions and answers from its own field. Other rows are held out, to measure on.

# %% [markdown] lang="zh"
# ## 4 · 数据
#
# 校准文本的作用，是让量化器看看各层实际会遇到什么输入。所以它要像真实的请求：用模型自己的聊天模板，问答来自同一个领域。另外留出一部分，专门用来测量。


# %%
def encode(pair):
    """Token ids of a conversation, and how many of them are the prompt."""
    prompt = tokenizer.apply_chat_template(pair["prompt"], tokenize=False, add_generation_prompt=True)
    ids = tokenizer(prompt + pair["chosen"] + tokenizer.eos_token, add_special_tokens=False)["input_ids"]
    start = len(tokenizer(prompt, add_special_tokens=False)["input_ids"])
    return {"question": pair["prompt"][-1]["content"], "text": prompt, "input_ids": ids, "start": start}


pairs = data.load_preferences(DATASET, DATASET_CONFIG, ROWS)
rows = pairs.filter(lambda pair: len(pair["prompt"]) == 1).map(encode, remove_columns=pairs.column_names)
rows = rows.filter(lambda row: len(row["input_ids"]) <= MAX_SEQ_LENGTH)
rest, held_out = data.hold_out(rows, HELD_OUT, SEED, DATASET)
calibration = rest.select(range(min(CALIBRATION_ROWS, len(rest))))
tokens = sum(map(len, calibration["input_ids"]))
print(f"{len(calibration)} rows to calibrate with, {tokens:,} tokens; {HELD_OUT} held out")
print(tokenizer.decode(calibration[0]["input_ids"]))

# %% [markdown] lang="en"
# And a control: as many tokens, drawn at random. If calibration text did not matter, this would do as well.

# %% [markdown] lang="zh"
# 再备一份对照：token 数一样，内容随机。要是校准文本无所谓，用它效果也该一样。

# %%
dice = torch.Generator().manual_seed(SEED)
drawn = [torch.randint(len(tokenizer), (len(ids),), generator=dice).tolist() for ids in calibration["input_ids"]]
texts = {"text": calibration.select_columns("input_ids"), "random": Dataset.from_dict({"input_ids": drawn})}
print(tokenizer.decode(drawn[0][:40]))

# %% [markdown] lang="en"
# ## 5 · Before
#
# Two figures. **Perplexity**: how surprised the model is by held-out answers. **KL divergence**: how far its probabilities have moved from the 16-bit model's, token by token. Perplexity can fall by luck; KL divergence cannot, it is 0 only for the same model.

# %% [markdown] lang="zh"
# ## 5 · 量化之前
#
# 看两个数。**困惑度**：留出的回答让模型有多意外。**KL 散度**：逐个 token 看，概率分布和 16 位模型差了多远。困惑度可能碰巧变好，KL 散度不会：只有和原模型完全一样，它才是 0。


# %%
def read(folder):
    """A model in the number format that this machine computes in."""
    return AutoModelForCausalLM.from_pretrained(folder, dtype=runtime.dtype(), device_map="auto").eval()


@torch.no_grad()
def predictions(model, row):
    """Log-probabilities at each token of the answer (tokens × vocabulary), and those tokens."""
    ids = torch.tensor(row["input_ids"], device=model.device)
    logits = model(input_ids=ids[None]).logits[0, row["start"] - 1 : -1]
    return logits.float().log_softmax(-1), ids[row["start"] :]


def damage(model):
    surprise = divergence = tokens = 0
    for row in held_out:
        (wanted, answer), (got, _) = predictions(reference, row), predictions(model, row)
        divergence += F.kl_div(got, wanted, log_target=True, reduction="sum").item()
        surprise -= got.gather(1, answer[:, None]).sum().item()
        tokens += len(answer)
    return {"perplexity": math.exp(surprise / tokens), "KL": divergence / tokens}


reference = read(merged)
damage(reference)


# %%
def answers(model):
    return [one.text for one in generation.complete(model, tokenizer, held_out["text"][:ASKED], MAX_NEW_TOKENS)]


answers_16bit = answers(reference)
print(held_out["question"][0], answers_16bit[0], sep="\n\n")

# %% [markdown] lang="en"
# ## 6 · GPTQ by hand, on one layer
#
# A layer computes `X Wᵀ`. Rounding each weight to the nearest of 16 steps (**RTN**) keeps each *weight* close. What should stay close is the *output*, for the inputs that really come. Its error is `‖X (W − Q)ᵀ‖²`, and for that all that one needs of the inputs is `H = XᵀX`, collected by a hook:

# %% [markdown] lang="zh"
# ## 6 · 手算 GPTQ：先做一层
#
# 一层算的是 `X Wᵀ`。每个权重都舍入到 16 个刻度中最近的那个（**RTN**），保证的只是单个**权重**改动小。可真正要紧的是：对实际会来的输入，**输出**改动要小。误差是 `‖X (W − Q)ᵀ‖²`，算它只需要知道 `H = XᵀX`，挂个钩子就能收集：

# %%
layer = reference.model.layers[0].mlp.down_proj


@torch.no_grad()
def hessian(sequences):
    """XᵀX of the layer's inputs: inputs × inputs."""
    H = torch.zeros(layer.in_features, layer.in_features, device=reference.device)

    def collect(_, inputs, __):
        X = inputs[0].flatten(0, -2).float()
        H.add_(X.T @ X)

    hook = layer.register_forward_hook(collect)
    for ids in sequences:
        reference(input_ids=torch.tensor([ids], device=reference.device))
    hook.remove()
    return H


H = {name: hessian(text["input_ids"]) for name, text in texts.items()}
H_held_out = hessian(held_out["input_ids"])
pd.DataFrame(H["text"].cpu()).iloc[:4, :4].round(2)

# %% [markdown] lang="en"
# GPTQ goes through the columns from left to right. It rounds one, and passes the error on to the columns that are still to come, so that they make up for it. How much each of them takes follows from `H`: inputs that move together can stand in for each other. The factors are the rows of a Cholesky factor of `H⁻¹`.

# %% [markdown] lang="zh"
# GPTQ 从左到右一列一列来：舍入一列，再把误差摊给后面还没动的各列，让它们去补。每列分到多少由 `H` 决定：总是一起变化的输入，可以互相顶替。分摊的系数，就是 `H⁻¹` 的 Cholesky 因子的各行。


# %%
W = layer.weight.detach().float()
top = 2 ** (BITS - 1)  # steps from -8 to 7
scale = W.unflatten(1, (-1, GROUP_SIZE)).abs().amax(-1).repeat_interleave(GROUP_SIZE, 1) / (top - 0.5)


def nearest(w, scale):
    return (w / scale).round().clamp(-top, top - 1) * scale


def gptq(W, H):
    W, Q = W.clone(), torch.empty_like(W)
    damping = 0.01 * H.diag().mean() * torch.eye(len(H), device=H.device)  # some inputs never moved
    U = torch.linalg.cholesky(torch.linalg.inv((H + damping).double()), upper=True).float()
    for j in range(W.shape[1]):
        Q[:, j] = nearest(W[:, j], scale[:, j])
        error = (W[:, j] - Q[:, j]) / U[j, j]
        W[:, j + 1 :] -= error[:, None] * U[j, j + 1 :]
    return Q


# %% [markdown] lang="en"
# The error of the output, on held-out text, as a share of the output itself. `rtn` rounds to nearest; `random` is GPTQ with an `H` of random tokens, `gptq` with one of calibration text:

# %% [markdown] lang="zh"
# 在留出文本上，输出误差占输出本身的比例。`rtn` 是就近舍入；`random` 和 `gptq` 都是 GPTQ，`H` 分别来自随机 token 和校准文本：


# %%
def output_error(Q):
    """‖X (W − Q)ᵀ‖² / ‖X Wᵀ‖² over the held-out inputs."""
    difference = W - Q.to(W)
    return ((difference @ H_held_out * difference).sum() / (W @ H_held_out * W).sum()).item()


by_hand = {
    "rtn": output_error(nearest(W, scale)),
    "random": output_error(gptq(W, H["random"])),
    "gptq": output_error(gptq(W, H["text"])),
}
pd.DataFrame({"output error": by_hand, "of rtn's": {name: error / by_hand["rtn"] for name, error in by_hand.items()}})

# %% [markdown] lang="en"
# ## 7 · Quantize the whole model
#
# `llmcompressor`, from the vLLM project, does the same layer after layer, feeding each one the outputs of those already quantized. The token embedding and `lm_head` stay in 16 bits. `QuantizationModifier` is RTN in the same file format, so that nothing else differs.

# %% [markdown] lang="zh"
# ## 7 · 量化整个模型
#
# `llmcompressor` 出自 vLLM 项目，做的是同一件事：一层接一层，每层的输入都来自前面已经量化好的层。词嵌入和 `lm_head` 保持 16 位。`QuantizationModifier` 就是 RTN，文件格式一样，这样别的什么都不差。

# %%
from loguru import logger

logger.disable("llmcompressor")  # a line for each matrix
recipes = {"rtn": (QuantizationModifier, None), "random": (GPTQModifier, "random"), "gptq": (GPTQModifier, "text")}


def quantize(name):
    """Write the model's 4-bit twin into a folder of that name."""
    modifier, text = recipes[name]
    model = AutoModelForCausalLM.from_pretrained(merged, dtype="auto")
    weights = QuantizationArgs(num_bits=BITS, group_size=GROUP_SIZE, strategy="group", symmetric=True)
    scheme = QuantizationScheme(targets=["Linear"], weights=weights)
    recipe = modifier(config_groups={"all": scheme}, ignore=["lm_head"])
    calibrate = {"dataset": texts[text], "num_calibration_samples": len(calibration)} if text else {}
    oneshot(model=model, recipe=recipe, max_seq_length=MAX_SEQ_LENGTH, **calibrate)
    with export.replacing(output / name) as folder:
        model.save_pretrained(folder, save_compressed=True)
        tokenizer.save_pretrained(folder)
    memory.empty(model)  # llmcompressor holds on to the models that it has traced


# %%
costs = {}
for name in recipes:
    with memory.track() as costs[name]:
        quantize(name)
    memory.free()
    print(f"{name}: {costs[name]}")
written = AutoConfig.from_pretrained(output / "gptq").quantization_config  # what a server goes by
pd.Series(
    written["config_groups"]["group_0"]["weights"] | {"format": written["format"], "ignore": written["ignore"]}
).dropna()

# %% [markdown] lang="en"
# `torchao`, PyTorch's own, quantizes a model in memory with one call. This is RTN again; its merit is that it needs no data and compiles well.

# %% [markdown] lang="zh"
# `torchao` 是 PyTorch 自家的库，一次调用就把内存里的模型量化好。它做的还是 RTN；好处是不需要数据，和 `torch.compile` 配合得好。

# %%
from torchao.quantization import IntxWeightOnlyConfig, quantize_
from torchao.quantization.granularity import PerGroup

with_torchao = read(merged)
quantize_(
    with_torchao, IntxWeightOnlyConfig(weight_dtype=getattr(torch, f"int{BITS}"), granularity=PerGroup(GROUP_SIZE))
)
torchao_figures = damage(with_torchao)
memory.free("with_torchao")
torchao_figures

# %% [markdown] lang="en"
# ## 8 · After
#
# `layer` is section 6's layer as the library made it, measured with your `output_error`. (It takes the columns in another order, the important ones first.) `bits` counts what the quantized matrices take in the file, scales included. `same` is the share of greedy answers that did not change by a single character.

# %% [markdown] lang="zh"
# ## 8 · 量化之后
#
# `layer` 是第 6 节那一层，由库来量化，再用你写的 `output_error` 去量。（库里处理各列的次序不同，重要的先来。）`bits` 是被量化的矩阵在文件里平均每个权重占的比特数，缩放系数也算在内。`same` 是贪心解码的回答一个字都没变的比例。

# %%
figures = {"16bit": {"layer": 0.0} | export.size_on_disk(merged) | damage(reference) | {"same": 1.0}}
for name in recipes:
    model = read(output / name)
    same = [one == other for one, other in zip(answers(model), answers_16bit)]
    figures[name] = {"layer": output_error(model.model.layers[0].mlp.down_proj.weight.detach())}
    figures[name] |= export.size_on_disk(output / name) | damage(model) | {"same": sum(same) / len(same)}
    memory.free("model")
figures["torchao"] = torchao_figures
pd.DataFrame(figures).T.round(4)

# %% [markdown] lang="en"
# Free the GPU: from here on the servers need it.

# %% [markdown] lang="zh"
# 把显存腾出来，后面要给服务用。

# %%
memory.free("reference", "layer", "H", "H_held_out", "W", "scale")

# %% [markdown] lang="en"
# ## 9 · Serve
#
# A server is a process of its own. It listens on this machine alone (`127.0.0.1`), on a free port. And it must end: a forgotten one holds the GPU. So it is stopped when any cell fails, when the kernel restarts, and even when the kernel is killed: a small guard process notices that its pipe to the notebook has closed.

# %% [markdown] lang="zh"
# ## 9 · 部署
#
# 服务是一个独立的进程。它只对本机开放（`127.0.0.1`），端口挑一个空闲的。还有一条：必须停得掉，忘了关就一直占着 GPU。所以任何一个单元格出错、内核重启、甚至内核被强行杀掉，它都会停：有一个小小的守护进程连着一根管道，管道一断，它就去收尾。

# %%
api_key = runtime.secret("VLLM_API_KEY")  # vLLM then asks every caller for it; None: anyone on this machine may ask
server = serve.Server(output / "gptq", ENGINE, SERVER_OPTIONS, api_key=api_key)
print(server.tail(lines=4))

# %% [markdown] lang="en"
# ### From Python
#
# OpenAI's own client, with another address. Whatever was written for their API now talks to your model.

# %% [markdown] lang="zh"
# ### 从 Python 调用
#
# 用的就是 OpenAI 官方的客户端，换个地址而已。凡是为它的接口写的程序，现在都能和你的模型对话。

# %%
from openai import OpenAI

client = OpenAI(base_url=server.base_url, api_key=server.api_key)
asked = {"model": server.model, "max_tokens": MAX_NEW_TOKENS, "temperature": 0}
messages = [{"role": "user", "content": held_out["question"][0]}]
reply = client.chat.completions.create(messages=messages, **asked)
print(reply.choices[0].message.content)
print(
    f"finish_reason: {reply.choices[0].finish_reason}; {reply.usage.prompt_tokens} + {reply.usage.completion_tokens} tokens"
)

# %% [markdown] lang="en"
# **Streaming**: the answer comes in pieces, as it is written. It takes as long as before, but the reader waits only for the first piece.

# %% [markdown] lang="zh"
# **流式输出**：边写边发。总时间不变，但读的人只需要等第一个字。

# %%
import time

began, arrived = time.perf_counter(), []
for chunk in client.chat.completions.create(messages=messages, stream=True, **asked):
    if chunk.choices and (piece := chunk.choices[0].delta.content):
        arrived.append(time.perf_counter() - began)
        print(piece, end="", flush=True)
print(f"\n\n{len(arrived)} pieces; the first after {arrived[0]:.3f} s, the last after {arrived[-1]:.3f} s")

# %% [markdown] lang="en"
# ### From the command line
#
# `curl` shows what really goes over the line: JSON there, and back a line `data: …` for each piece. (Windows has had it since version 10; some small Linux images lack it: `apt install curl`.)

# %% [markdown] lang="zh"
# ### 从命令行调用
#
# 用 `curl` 能看到线路上真正传的东西：发过去的是 JSON，回来的是一行行 `data: …`，每行一小段。（Windows 10 以后自带；有些精简的 Linux 镜像没有：`apt install curl`。）

# %%
import json
import shlex
import subprocess

request = output / "request.json"
request.write_text(json.dumps(asked | {"messages": messages, "stream": True, "max_tokens": 4}), encoding="utf-8")
curl = [
    "curl",
    "--no-progress-meter",
    "--fail-with-body",
    "--noproxy",
    "127.0.0.1",
    f"{server.base_url}/chat/completions",
]
curl += ["-H", "Content-Type: application/json", "-d", f"@{request}"]
print(shlex.join(curl), '-H "Authorization: Bearer $VLLM_API_KEY"\n')
key = f"Authorization: Bearer {server.api_key}"  # by the standard input: a command line can be read by everyone
answered = subprocess.run([*curl, "-H", "@-"], input=key, check=True, capture_output=True, text=True, encoding="utf-8")
print(answered.stdout)

# %% [markdown] lang="en"
# ### Is it the same model?
#
# A server has its own template code, its own kernels, its own defaults. So ask it the held-out questions and hold its answers against those of section 8.

# %% [markdown] lang="zh"
# ### 还是原来那个模型吗？
#
# 服务端的模板代码、计算内核、默认参数都是另一套。所以拿留出的问题问它，和第 8 节的回答对一对。

# %%
direct = read(output / "gptq")
expected = answers(direct)
memory.free("direct")
served = [load.ask(client, server.model, question, MAX_NEW_TOKENS) for question in held_out["question"][:ASKED]]
equal = [one.text == other for one, other in zip(served, expected)]
served_equal = sum(equal) / len(equal)
print(f"{sum(equal)} of {len(equal)} answers are the same to the character")

# %% [markdown] lang="en"
# ### Many at once
#
# To write one token, the server reads every weight once. For eight answers at the same time it reads them once, too, and writes eight tokens. **Continuous batching** lets requests join and leave that batch at every token. Three servers, the same questions: the 4-bit model, which runs already; the 16-bit one; and the 4-bit one again, told to take one request at a time. The two new ones are held by `with`, the surest way where one cell is enough.

# %% [markdown] lang="zh"
# ### 很多人同时问
#
# 每写一个 token，服务器都要把全部权重读一遍。八个回答一起写，也只读一遍，却写出八个 token。**连续批处理**让请求随时进、随时出，每个 token 都可以换人。下面用同样的问题问三个服务：已经在跑的 4 比特模型、16 位模型，还有一次只接一个请求的 4 比特模型。后两个一个单元格就用完了，放在 `with` 里最稳妥。

# %%
questions = (rows["question"][:] * REQUESTS)[:REQUESTS]
runs = {"4 bits": load.measure(server, questions, AT_ONCE, MAX_NEW_TOKENS)}
others = {"16 bits": (merged, SERVER_OPTIONS), "4 bits, one at a time": (output / "gptq", ONE_AT_A_TIME)}
for name, (folder, options) in others.items():
    with serve.Server(folder, ENGINE, options, api_key=api_key) as other:
        runs[name] = load.measure(other, questions, AT_ONCE, MAX_NEW_TOKENS)
report.load_plot(runs)

# %% [markdown] lang="en"
# All of it in one table, size, quality and speed:

# %% [markdown] lang="zh"
# 体积、质量、速度，放进一张表：

# %%
speed = {"16bit": runs["16 bits"]["tokens/s"], "gptq": runs["4 bits"]["tokens/s"]}
for name, tokens in speed.items():
    figures[name] |= {"tokens/s, one request": tokens.iloc[0], f"tokens/s, {AT_ONCE[-1]} at once": tokens.iloc[-1]}
pd.DataFrame({name: figures[name] for name in speed}).T.round(3)

# %% [markdown] lang="en"
# **Little's law** checks such a table: requests under way = requests a second × seconds that each takes. If the last column is not near the first, requests wait somewhere that you do not measure.

# %% [markdown] lang="zh"
# 用 **Little 定律** 可以验算这张表：在途的请求数 = 每秒完成的请求数 × 每个请求花的秒数。最后一列和第一列差得远，就说明请求在某个你没量到的地方排队。

# %%
table = runs["4 bits"].round(3)
table["requests/s × latency"] = (runs["4 bits"]["requests/s"] * runs["4 bits"]["latency mean"]).round(2)
table

# %% [markdown] lang="en"
# ### A chat page, before and after
#
# One question, two columns. If `MODEL` is an adapter: its base as it was, and yours, tuned and in 4 bits. If not, the same model in 16 bits and in 4: what differs then is what quantizing did. Open the address and ask; after "Run all" the page is closed again, so run section 9's first code cell and this one once more. The address is one of the machine that runs the notebook. Where that is not yours (Kaggle), `PUBLIC = True` gives a public one through Gradio's servers; then everybody who has it can ask.

# %% [markdown] lang="zh"
# ### 聊天页面：前后对比
#
# 一个问题，两栏回答。`MODEL` 是适配器时，左边是原来的基座，右边是你微调过的、4 比特的模型；不是适配器时，两边是同一个模型，左边 16 位，右边 4 比特，差别都出自量化。打开地址就能问；如果是「全部运行」，跑完时页面已经关了，把第 9 节第一个代码格和这一格再跑一遍。地址是运行笔记本的那台机器上的；那台机器不在你手边（比如 Kaggle），就要设 `PUBLIC = True`，借 Gradio 的服务器生成一个公网地址，拿到地址的人都能用。

# %%
from helpers.chat_page import chat_page

before = serve.Server(base, ENGINE, SERVER_OPTIONS, api_key=api_key)
page = chat_page({"before": before, "after": server}, held_out["question"][:3], max_tokens=MAX_NEW_TOKENS)
_, address, public = page.launch(share=PUBLIC, prevent_thread_lock=True, quiet=True)
print(public or address)

# %%
columns = {"question": held_out["question"][:3]}
for name, one in {"before": before, "after": server}.items():
    columns[name] = [load.ask(load.client(one), one.model, text, MAX_NEW_TOKENS).text for text in columns["question"]]
report.side_by_side(pd.DataFrame(columns).to_dict("records"))

# %% [markdown] lang="en"
# When you have asked enough:

# %% [markdown] lang="zh"
# 问够了就关掉：

# %%
page.close()
before.stop()
server.stop()
print("stopped:", serve.refused(server.url) and serve.refused(before.url))

# %%
batched, single = runs["4 bits"], runs["4 bits, one at a time"]
places = {"one": 0, "many": -1}  # requests at once: the fewest and the most
report.summary(
    OUTPUT_DIR,
    **{f"by_hand_{name}": error for name, error in by_hand.items()},
    layer_gptq=figures["gptq"]["layer"],
    bits_gptq=figures["gptq"]["bits"],
    **{f"size_{name}": figures[name]["MiB"] for name in ("16bit", *recipes)},
    **{f"perplexity_{name}": of["perplexity"] for name, of in figures.items()},
    **{f"kl_{name}": of["KL"] for name, of in figures.items()},
    **{f"same_{name}": figures[name]["same"] for name in recipes},
    seconds_gptq=costs["gptq"].seconds,
    served_equal=served_equal,
    streamed_pieces=len(arrived),
    asked=len(questions) * len(AT_ONCE) * len(runs),
    answered=int(sum(run["answered"].sum() for run in runs.values())),
    failed=int(sum(run["failed"].sum() for run in runs.values())),
    **{f"throughput_{name}": batched["tokens/s"].iloc[place] for name, place in places.items()},
    **{f"throughput_{name}_one_at_a_time": single["tokens/s"].iloc[place] for name, place in places.items()},
    **{f"first_token_{name}": batched["first token p50"].iloc[place] for name, place in places.items()},
    **{f"first_token_{name}_one_at_a_time": single["first token p50"].iloc[place] for name, place in places.items()},
    stopped=bool(serve.refused(server.url) and serve.refused(before.url) and not serve.stop_all()),
)

# %% [markdown] lang="en"
# ## 10 · When it goes wrong
#
# | what you see | why | what to do |
# |---|---|---|
# | `vLLM is not installed` | it is a program of its own | the line in section 1, once |
# | the server ended before it answered | the end of its log is in the message; mostly memory | `Free memory … less than desired`: lower `gpu-memory-utilization`, stop other servers. `No available memory for the cache blocks`, or `larger than the available KV cache memory`: raise it, or lower `max-model-len` |
# | out of memory though the GPU should be free | the notebook still holds a model | the cell before section 9; or restart the kernel |
# | `unflatten: sizes don't multiply up`, or `not divisible by group_size` | a layer's width is no multiple of it | a smaller `GROUP_SIZE`: 64 or 32 |
# | `KeyError: 'forward'` in section 7 | Unsloth has loaded a model in this kernel, and put its own `forward` where llm-compressor looks for transformers' | restart the kernel; Unsloth and this lesson each in a notebook of their own |
# | 4 bits, and worse than RTN | calibration text in another template or language | print a row of it, as section 4 does |
# | smaller on disk, but neither in memory nor faster | transformers unpacks the weights as it loads them | vLLM, which computes from 4 bits; its log names the kernel |
# | answers differ from section 8's | another template, or sampling by default | send `temperature`; compare the prompt's tokens in `usage` |
# | throughput stops growing | compute or KV cache is full; requests queue | look at `first token`; more `gpu-memory-utilization` |
#
# **Now you:** set `BITS = 3` and run up to section 8. Which column moves most, and which way of quantizing holds best? (Guess first; the reading has the figures.)

# %% [markdown] lang="zh"
# ## 10 · 出了问题怎么办
#
# | 现象 | 原因 | 办法 |
# |---|---|---|
# | `vLLM is not installed` | 它是个独立的程序 | 运行一次第 1 节里的那行命令 |
# | 服务还没应答就退出了 | 报错里附着日志末尾，多半是显存不够 | 日志说 `Free memory … less than desired`：调小 `gpu-memory-utilization`，停掉别的服务；说 `No available memory for the cache blocks` 或 `larger than the available KV cache memory`：反过来调大它，或者调小 `max-model-len` |
# | GPU 应该是空的，却报显存不足 | 笔记本里还留着模型 | 运行第 9 节前面那格，或者重启内核 |
# | `unflatten: sizes don't multiply up`，或者 `not divisible by group_size` | 某一层的宽度不是 `GROUP_SIZE` 的倍数 | 把 `GROUP_SIZE` 改小：64 或 32 |
# | 第 7 节报 `KeyError: 'forward'` | 这个内核里用 Unsloth 加载过模型，transformers 的 `forward` 已经被它换掉，llm-compressor 认不出来 | 重启内核；用 Unsloth 训练和这一课，各开各的笔记本 |
# | 量化后比 RTN 还差 | 校准文本的模板或语言不对 | 像第 4 节那样打印一条看看 |
# | 文件小了，显存没省，也没变快 | transformers 加载时就把权重解包回 16 位 | 用 vLLM，它直接拿 4 比特算，日志里写着用的是哪个内核 |
# | 回答和第 8 节不一样 | 模板不同，或者默认开了采样 | 请求里写明 `temperature`；对照 `usage` 里提示词的 token 数 |
# | 吞吐量上不去了 | 算力或 KV 缓存用满，请求在排队 | 看 `first token` 那一列；调大 `gpu-memory-utilization` |
#
# **轮到你了**：把 `BITS` 改成 3，运行到第 8 节。哪一列变化最大，哪种做法最扛得住？（先猜一猜，数字在讲解里。）
