# %% [markdown] lang="en"
# It greets and counts.

# %% [markdown] lang="zh"
# 打招呼，数数。

# %% tags=["parameters"]
NAME = "world"
COUNT = 1000  # how far
RATE = 0.5
OUTPUT_DIR = "outputs/01_tiny"

# %%
print(f"hello {NAME}: {sum(range(COUNT + 1))}")

# %%
# %%writefile greeting.txt
hello

# %% [markdown] lang="en"
# ## The end

# %% [markdown] lang="zh"
# ## 完

# %%
from helpers import report

report.summary(OUTPUT_DIR, name=NAME, total=sum(range(COUNT + 1)))
